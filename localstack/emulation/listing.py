"""What DescribeInstances tells of instances: what the backend knows, made to last as on EC2, and on
order what was so before, or a part of it."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from emulation import ec2
from emulation.ec2 import Backend, Parameters
from emulation.faults import Fault

_NEVER = float("inf")
_CODES = {"pending": "0", "running": "16", "shutting-down": "32", "terminated": "48"}
_OVER = frozenset({"shutting-down", "terminated"})


@dataclass
class _Life:
    """An instance's moments: made, running, on its way out, gone."""

    made: float
    runs: float
    ends: float = _NEVER
    gone: float = _NEVER

    def state(self, known: str, moment: float) -> str:
        """At that moment, of one that the backend now knows in the state `known`."""
        if moment >= self.ends:
            return known if moment >= self.gone else "shutting-down"
        if known == "running" or (known in _OVER and self.ends < _NEVER):
            return "pending" if moment < self.runs else "running"
        return known

    @property
    def shutting_down(self) -> bool:
        return self.ends < _NEVER and self.gone == _NEVER


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Listing:
    backend: Backend
    _clock: Callable[[], float] = _now
    _lives: dict[str, _Life] = field(default_factory=dict)
    _reasons: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Why an instance has been terminated, where it was not its user's wish."""

    def made(self, instance_id: str, pending: float) -> None:
        """An instance is there, and pending for so many seconds."""
        now = self._clock()
        self._lives[instance_id] = _Life(now, now + pending)

    def explain(self, instance_id: str, code: str, message: str) -> None:
        """From now on that is its state's reason."""
        self._reasons[instance_id] = (code, message)

    def shut_down(self, instance_id: str) -> bool:
        """It is on its way out, until it is told to have ended. Whether it was not before."""
        life = self._lives.get(instance_id)
        if life is None or life.ends < _NEVER:
            return False
        life.ends = self._clock()
        return True

    def shutting_down(self, instance_id: str) -> bool:
        life = self._lives.get(instance_id)
        return life is not None and life.shutting_down

    def ended(self, instance_ids: Iterable[str]) -> None:
        """The backend has ended them."""
        for instance_id in instance_ids:
            self.shut_down(instance_id)
            if self.shutting_down(instance_id):
                self._lives[instance_id].gone = self._clock()

    def truthful(self, faults: Collection[Fault]) -> bool:
        """Whether the backend's answer will do as it is."""
        now = self._clock()
        lingering = any(now < life.runs or life.shutting_down for life in self._lives.values())
        return not (faults or lingering or self._reasons)

    async def answer(
        self, headers: Mapping[str, str], form: Parameters, faults: Collection[Fault]
    ) -> tuple[int, bytes]:
        """Status and body of the answer to a DescribeInstances that these faults strike."""
        form, states = ec2.filter_values(form, "instance-state-name")
        status, body = await self.backend.post(headers, form)
        if status != 200:
            return status, body
        moment = self._clock() - sum(f.delay for f in faults if f.effect == "stale")
        lacking = [fault.instance for fault in faults if fault.effect == "incomplete"]
        root = ec2.tree(body)
        for reservations in root.findall("reservationSet"):
            for reservation in reservations.findall("item"):
                if not self._keep(reservation, moment, states, lacking):
                    reservations.remove(reservation)
        return status, ec2.document(root)

    def _keep(
        self, reservation: ET.Element, moment: float, states: Sequence[str], lacking: Sequence[str]
    ) -> bool:
        """Leave in it what is told, as it is told; whether that is anything."""
        left = 0
        for instances in reservation.findall("instancesSet"):
            for item in instances.findall("item"):
                instance_id = ec2.text(item, "instanceId")
                lacks = any(fnmatchcase(instance_id, pattern) for pattern in lacking)
                if lacks or not self._told(item, instance_id, moment, states):
                    instances.remove(item)
                else:
                    left += 1
        return left > 0

    def _told(
        self, item: ET.Element, instance_id: str, moment: float, states: Sequence[str]
    ) -> bool:
        """Correct what the backend tells of an instance; whether it is asked for."""
        state = ec2.text(item, "instanceState/name")
        if life := self._lives.get(instance_id):
            if moment < life.made:
                return False
            state = life.state(state, moment)
            if state in _CODES:
                ec2.put(item, "instanceState/code", _CODES[state])
                ec2.put(item, "instanceState/name", state)
        if reason := self._reasons.get(instance_id):
            code, message = reason
            ec2.put(item, "stateReason/code", code)
            ec2.put(item, "stateReason/message", f"{code}: {message}")
        return not states or state in states


def shutting_down(instance_ids: Iterable[str]) -> Iterable[ET.Element]:
    """What TerminateInstances answers of instances that do not go at once."""
    for instance_id in instance_ids:
        item = ET.Element("item")
        ec2.put(item, "instanceId", instance_id)
        for name, state in (("currentState", "shutting-down"), ("previousState", "running")):
            ec2.put(item, f"{name}/code", _CODES[state])
            ec2.put(item, f"{name}/name", state)
        yield item
