"""The nouns of the design, as plain immutable data. No behaviour beyond naming."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tango_cloud.core.lifecycle import Reason, State


@dataclass(frozen=True, slots=True, order=True)
class MachineKey:
    """A machine's identity: what a caller needs to name it from any process."""

    deployment: str
    id: int
    name: str

    @property
    def instance_name(self) -> str:
        """Tango's spelling: `<prefix>-<id>-<name>`."""
        return f"{self.deployment}-{self.id}-{self.name}"

    def __str__(self) -> str:
        return self.instance_name


@dataclass(frozen=True, slots=True)
class Shape:
    """What a job needs of a machine. None, or no image's name: the provider's default."""

    image: str
    cores: int | None = None
    memory_mib: int | None = None
    disk_gib: int | None = None


class Market(StrEnum):
    ON_DEMAND = "on-demand"
    SPOT = "spot"


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to get a shape. `hourly_usd` is None where the price is not known."""

    provider: str
    region: str
    zone: str
    instance_type: str
    market: Market = Market.ON_DEMAND
    hourly_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """How often a cloud lets something be asked for: `burst` times at once, and `per_second` as
    soon as that is used up (a token bucket)."""

    burst: int
    per_second: float


class InstanceStatus(StrEnum):
    """A cloud's instance states, reduced to what callers tell apart."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    GONE = "gone"
    UNKNOWN = "unknown"
    """A state that this version does not know. It counts as present."""


PRESENT = frozenset({InstanceStatus.PENDING, InstanceStatus.RUNNING, InstanceStatus.UNKNOWN})
"""An instance in one of these is there, or about to be."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One entry of the inventory: what the cloud says, by tag.

    `uid` is the machine's unique name within all time (tag `tango-uid`): two incarnations of one
    `MachineKey` differ in it. `address` is empty until the cloud has assigned one.
    """

    instance_id: str
    key: MachineKey
    uid: str
    wave: str
    image: str
    status: InstanceStatus
    address: str
    port: int
    username: str
    zone: str
    instance_type: str
    created: dt.datetime
    expires: dt.datetime
    faults: tuple[str, ...] = ()
    """The tags that are missing or malformed: not ours alone, so nothing touches it by itself."""

    def may_be(self, booked: str) -> bool:
        """Whether it is the instance that the books have for its uid, by its id; empty: none is
        known yet. Else it is a copy, as "launch more like this" makes with every tag."""
        return booked in {"", self.instance_id}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a machine answers SSH, and what proves that it is the machine.

    `host_keys` are the public keys accepted, each `"<algorithm> <base64>"`. Never empty: there is
    no mode without verification. `compress`: whether streams are worth compressing on the way.
    `sudo`: whether the account must become root, by `sudo -n`.
    """

    address: str
    port: int
    username: str
    host_keys: tuple[str, ...]
    client_key_file: str
    compress: bool = False
    sudo: bool = False

    def __post_init__(self) -> None:
        if not self.host_keys:
            raise ValueError("an endpoint needs at least one host key to verify")


@dataclass(frozen=True, slots=True)
class MachineRequest:
    """One machine of a wave, before it exists. `user_data` is secret; everything else is not."""

    uid: str
    key: MachineKey
    shape: Shape
    offer: Offer
    tags: Mapping[str, str]
    expires: dt.datetime
    user_data: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as the ledger has it. Times are seconds since the epoch.

    `attempt` counts the machines requested before this one for the same wish, `offer` is the place
    of the offer in use among the provider's offers. `holder` is the process without which the
    machine is of no use to anybody; empty when it outlives who asked for it. `host_key` is what the
    machine must prove itself with; `host_key_next`, when set, is the key that is about to replace
    it.
    """

    uid: str
    key: MachineKey
    state: State
    reason: Reason
    detail: str
    provider: str
    shape: Shape
    attempt: int
    offer: int
    holder: str
    wave: str
    instance_id: str
    address: str
    port: int
    username: str
    host_key: str
    host_key_next: str
    created_at: float
    changed_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class Wave:
    """Machines created by one apply, and who applies it."""

    wave: str
    deployment: str
    provider: str
    state: WaveState
    owner: str
    terraform_pid: int
    terraform_started: float
    created_at: float


class WaveState(StrEnum):
    APPLYING = "applying"
    APPLIED = "applied"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a machine's story."""

    at: float
    machine: str
    uid: str
    event: str
    detail: str
