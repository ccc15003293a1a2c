"""Faults on order: what goes wrong, in which call, operation or host, how often, how long."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

Effect = Literal[
    "error",  # the call fails with `code` (a reason), and does nothing
    "operation-error",  # the operation ends with `code`; what was to be made is not
    "lost-response",  # the call is carried out, and its connection dropped
    "delay",  # the call is carried out after `delay` seconds
    "slow",  # the operation takes `delay` seconds more
    "twice",  # the call is carried out twice, as one that was delivered twice; the second answers
    "unreachable",  # calls to `zone` or `region` fail; an aggregated list lacks it, and says so
    "stale",  # a list of instances tells what was so `delay` seconds ago
    "incomplete",  # a list lacks instances, those called like `instance`, and does not say so
    "undying",  # what is deleted is STOPPING for `delay` seconds, and lives meanwhile
    "malformed",  # the answer is made one that the discovery document does not allow
    "boot-delay",  # the instance runs, its host begins to boot `delay` seconds later
    "no-boot",  # the instance runs, its host never boots
    "ssh-refused",  # the host boots, nothing listens for SSH
    "wrong-host-key",  # the host has another host key than its user data says
    "preempted",  # a spot instance is taken back `delay` seconds after it has begun to run
    "expires",  # the maximum run duration ends after `delay` seconds
]
_NEED_CODE = frozenset({"error", "operation-error"})


@dataclass(frozen=True)
class Fault:
    """Strikes calls for which all that it names is so.

    `action` is a pattern of methods (`instances.*`, `*.aggregatedList`), `instance` one of ids
    (`<zone>/<name>`). `zone`, `region` and `market` (`spot`, `on-demand`), `instance_type` are
    known of inserted instances; of other calls the place that is in their path. For `unreachable`
    they are what cannot be reached. The first `after` that would be struck are spared, at most
    `times` are struck, and none once `lasting` seconds have passed since the order. `status` is the
    HTTP status of an `error`; default: the one that Google gives with that reason.
    """

    effect: Effect
    action: str = "instances.insert"
    code: str = ""
    message: str = ""
    status: int | None = None
    delay: float = 0.0
    zone: str | None = None
    region: str | None = None
    instance_type: str | None = None
    market: str | None = None
    instance: str = "*"
    after: int = 0
    times: int | None = None
    lasting: float | None = None

    def __post_init__(self) -> None:
        if self.effect not in get_args(Effect):
            raise ValueError(f"no such effect: {self.effect!r}")
        if self.effect in _NEED_CODE and not self.code:
            raise ValueError(f"the effect {self.effect!r} needs a code")
        if self.effect == "unreachable" and not (self.zone or self.region):
            raise ValueError("the effect 'unreachable' needs a zone or a region")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Target:
    """What is known of a call before it is carried out."""

    action: str
    zone: str = ""
    region: str = ""
    instance_type: str = ""
    market: str = ""


@dataclass
class _Order:
    fault: Fault
    since: float
    met: int = 0

    def strikes(self, target: Target) -> bool:
        fault = self.fault
        if fault.lasting is not None and time.monotonic() > self.since + fault.lasting:
            return False
        if not fnmatchcase(target.action, fault.action):
            return False
        known = [(fault.instance_type, target.instance_type), (fault.market, target.market)]
        if fault.effect != "unreachable":
            known += [(fault.zone, target.zone), (fault.region, target.region)]
        if any(wanted not in {None, has} for wanted, has in known):
            return False
        self.met += 1
        struck = self.met - fault.after
        return struck > 0 and (fault.times is None or struck <= fault.times)


class Struck:
    """The faults that strike one call, by effect; of several with one effect, the first."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults

    def get(self, effect: Effect) -> Fault | None:
        return next((fault for fault in self._faults if fault.effect == effect), None)

    def all(self, effect: Effect) -> list[Fault]:
        return [fault for fault in self._faults if fault.effect == effect]

    def delay(self, effect: Effect) -> float:
        """Seconds that all faults of that effect take together."""
        return sum(fault.delay for fault in self.all(effect))


class Faults:
    def __init__(self) -> None:
        self._orders: list[_Order] = []

    def order(self, fault: Fault) -> None:
        self._orders.append(_Order(fault, time.monotonic()))

    def clear(self) -> None:
        self._orders.clear()

    def of(self, target: Target) -> Struck:
        return Struck([order.fault for order in self._orders if order.strikes(target)])
