"""Settings: `tango-cloud.toml` and `TANGO_CLOUD_*` variables, typed, unknown keys refused.

Looked up in this order, first found wins: the file named by `TANGO_CLOUD_CONFIG`,
`./tango-cloud.toml`, `tango-cloud.toml` in the user's configuration folder. A variable beats the
file: `TANGO_CLOUD_PREFIX=prod`, `TANGO_CLOUD_JOB__TIMEOUT_SECONDS=60`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict

from tango_cloud.core.errors import ConfigurationError, Fault
from tango_cloud.core.sections import (
    AwsSettings,
    GcpSettings,
    JobSettings,
    LocalSettings,
    MachineSettings,
    ReconcileSettings,
    Section,
    SshSettings,
    TerraformSettings,
    VmmsSettings,
    WaveSettings,
)

ENV_PREFIX = "TANGO_CLOUD_"
CONFIG_VARIABLE = ENV_PREFIX + "CONFIG"
FILE_NAME = "tango-cloud.toml"
_DELIMITER = "__"
_APP = "tango-cloud"


def _names(given: object) -> object:
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else given


def _some(given: object) -> object:
    if given == "":
        raise PydanticCustomError("folder", "Input should be a folder")
    return given


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


# Not decoded: in a variable it is a list with commas, not JSON.
Providers = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    NoDecode,
    BeforeValidator(_names),
    Field(min_length=1),
]


class Settings(Section):
    """Everything that can be set. Read with `load()`, which reports every fault at once."""

    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")] = "tango"
    """The deployment's name: it owns everything it tags. Tango's `PREFIX`."""
    provider: Providers = ("local",)
    """Where machines are made: `aws`, or several, `aws, gcp, local`, the cheapest offer first."""
    prices: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default={})
    """US dollars an hour by `provider/type` or `provider/type/market`, where a cloud tells none."""
    state_dir: Annotated[Path, BeforeValidator(_some), AfterValidator(_absolute)] = Field(
        default_factory=lambda: platformdirs.user_state_path(_APP)
    )
    """Folder of the ledger, the keys and Terraform's states (made with mode 0700)."""
    ledger_url: str | None = None
    """SQLAlchemy URL of the ledger; unset: a SQLite file in the state folder."""
    transport: Literal["ssh", "ansible"] = "ssh"
    """What carries jobs to machines and back; `ansible` needs the extra of that name."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """What is logged to standard error."""

    machine: MachineSettings = MachineSettings()
    job: JobSettings = JobSettings()
    wave: WaveSettings = WaveSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
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
    except ValueError:
        faults += _unreadable_variables()
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
    return _source()()


def _source() -> EnvSettingsSource:
    return EnvSettingsSource(
        _Variables, env_prefix=ENV_PREFIX, env_nested_delimiter=_DELIMITER, case_sensitive=False
    )


def _unreadable_variables() -> list[Fault]:
    faults = []
    for name, text in os.environ.items():
        source = _source()
        source.env_vars = {name.lower(): text}
        try:
            source()
        except ValueError:
            expected = """JSON, such as '["a", "b"]' or '{"a": 1}'"""
            faults.append(Fault(name, f"{text!r} will not do", expected))
    return faults


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
