"""Faults on order: what goes wrong, in which call or host, how often and for how long."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

Effect = Literal[
    "error",  # the call fails with `code`, and does nothing
    "lost-response",  # the call is carried out, and its connection dropped
    "delay",  # the call is carried out after `delay` seconds
    "unreachable",  # the call does nothing, and its connection is dropped
    "twice",  # the call is carried out twice, as one that was delivered twice; the second answers
    "stale",  # a listing of instances tells what was so `delay` seconds ago
    "incomplete",  # a listing lacks instances, those called like `instance`, and does not say so
    "undying",  # what is to be terminated is shutting down for `delay` seconds, and lives meanwhile
    "terminated",  # the instance goes straight to terminated; `code` is its state reason
    "pending",  # the instance stays pending for `delay` seconds, and its host off
    "boot-delay",  # the instance runs, its host begins to boot `delay` seconds later
    "no-boot",  # the instance runs, its host never boots
    "ssh-refused",  # the host boots, nothing listens for SSH
    "wrong-host-key",  # the host has another host key than its user data says
]
OF_LAUNCHES = frozenset(
    {"terminated", "pending", "boot-delay", "no-boot", "ssh-refused", "wrong-host-key"}
)
"""Effects on an instance that has been made, rather than on a call."""
_OF_LISTINGS = frozenset({"stale", "incomplete"})
_OF_DRY_RUNS = frozenset({"UnauthorizedOperation", "AuthFailure", "RequestExpired", "ExpiredToken"})
"""Codes that a dry run finds out. It knows nothing of capacity, say."""

_OF_REQUESTS = frozenset({"InsufficientInstanceCapacity", "InsufficientHostCapacity"})
"""Codes that stay the same when a request is tried again a moment later."""


@dataclass(frozen=True)
class Fault:
    """Strikes calls, or launches, for which all that it names is so.

    `action` is a pattern (`ec2:Describe*`), `instance` one of ids. `zone`, `instance_type` and
    `market` are known of RunInstances alone. The first `after` that would be struck are spared, at
    most `times` are struck, and none once `lasting` seconds have passed since the order. With
    `burst` it strikes only what exceeds a bucket of so many, refilled `per_second`, as EC2
    throttles. Tries are counted; for a lack of capacity, requests: one that found none finds none
    however often it is tried.
    """

    effect: Effect
    action: str = "ec2:RunInstances"
    code: str = ""
    message: str = ""
    delay: float = 0.0
    zone: str | None = None
    instance_type: str | None = None
    market: str | None = None
    instance: str = "*"
    after: int = 0
    times: int | None = None
    lasting: float | None = None
    burst: int | None = None
    per_second: float = 0.0

    def __post_init__(self) -> None:
        if self.effect not in get_args(Effect):
            raise ValueError(f"no such effect: {self.effect!r}")
        if self.effect in {"error", "terminated"} and not self.code:
            raise ValueError(f"the effect {self.effect!r} needs a code")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Call:
    """What is known of a call before it is carried out. `listing`: it asks for no certain ids."""

    action: str
    zone: str = ""
    instance_type: str = ""
    market: str = ""
    dry: bool = False
    token: str = ""
    listing: bool = False


@dataclass
class _Order:
    fault: Fault
    since: float
    met: int = 0
    refused: set[str] = field(default_factory=set)
    """Tokens of requests that found no capacity."""
    tokens: float = float("inf")
    """In the bucket, full at first."""
    drawn: float = 0.0

    def strikes(self, call: Call) -> bool:
        fault = self.fault
        if fault.lasting is not None and time.monotonic() > self.since + fault.lasting:
            return False
        known = ((fault.zone, call.zone), (fault.instance_type, call.instance_type))
        if any(wanted not in {None, has} for wanted, has in (*known, (fault.market, call.market))):
            return False
        if not fnmatchcase(call.action, fault.action):
            return False
        if fault.effect in _OF_LISTINGS and not call.listing:
            return False
        if call.dry and fault.code not in _OF_DRY_RUNS:
            return False
        if call.token in self.refused:
            return True
        if fault.burst is not None and self._draw(fault.burst, fault.per_second):
            return False
        self.met += 1
        struck = self.met - fault.after
        strikes = struck > 0 and (fault.times is None or struck <= fault.times)
        if strikes and call.token and fault.code in _OF_REQUESTS:
            self.refused.add(call.token)
        return strikes

    def _draw(self, burst: int, per_second: float) -> bool:
        """Whether the bucket had something left."""
        now = time.monotonic()
        self.tokens = min(burst, self.tokens + (now - self.drawn) * per_second)
        self.drawn = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass
class Faults:
    _orders: list[_Order] = field(default_factory=list)

    def order(self, fault: Fault) -> None:
        self._orders.append(_Order(fault, time.monotonic()))

    def clear(self) -> None:
        self._orders.clear()

    def of_call(self, call: Call) -> list[Fault]:
        return [order.fault for order in self._of(OF_LAUNCHES, False) if order.strikes(call)]

    def of_launch(self, call: Call) -> list[Fault]:
        return [order.fault for order in self._of(OF_LAUNCHES, True) if order.strikes(call)]

    def _of(self, effects: frozenset[str], inside: bool) -> Iterable[_Order]:
        return [order for order in self._orders if (order.fault.effect in effects) is inside]
