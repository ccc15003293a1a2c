"""Where cloud, ledger and states disagree, and what is to be done about each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import PRESENT, Instance, Machine, MachineKey, Wave


class Kind(StrEnum):
    """What is wrong with what was found."""

    ORPHAN = "orphan"
    """In the cloud, unknown to the ledger."""
    LEFTOVER = "leftover"
    """In the cloud, though gone on the books."""
    DAMAGED = "damaged tags"
    """Tagged as ours, but not by us alone: whose it is cannot be known."""
    LOST = "lost"
    """On the books, absent from the cloud."""
    EXPIRED = "expired"
    DESERTED = "deserted"
    """The process that needed the machine is dead."""
    FAILED = "failed"
    """Not to be used again, and still there."""
    UNFINISHED = "unfinished"
    """A removal that was begun."""
    ABANDONED = "abandoned"
    """A wave whose owner died before it was finished."""
    STATE = "state"
    """A wave's state without a machine."""
    STATES = "states unknown"
    """The backend of the states cannot be asked. All that needs none is judged all the same."""
    NO_STATE = "no state"
    """A machine without its wave's state. It can be used and removed all the same."""
    STRAY = "stray"
    """A part of a machine that is no more: a volume, a network interface."""


class Action(StrEnum):
    ADOPT = "adopt"
    """Put it on the books."""
    DESTROY = "destroy"
    STRIKE = "strike off"
    """Book it as gone."""
    FINISH = "finish"
    DISCARD = "discard"
    DELETE = "delete"
    WAIT = "wait"
    """Too young to be judged."""
    TELL = "tell"
    """Nothing: a person is to know."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement. `subject` is what the cloud or Terraform calls it, `detail` the evidence,
    for a person; `machine` is what the books have, `instance` what the cloud has and they have not.
    """

    kind: Kind
    action: Action
    provider: str
    subject: str
    detail: str = ""
    machine: Machine | None = field(default=None, repr=False)
    instance: Instance | None = field(default=None, repr=False)

    @property
    def open(self) -> bool:
        """Whether something is still to be done about it."""
        return self.action not in {Action.WAIT, Action.TELL}

    @property
    def what(self) -> tuple[Kind, str, str]:
        """What it is about: the same in two looks."""
        return (self.kind, self.provider, self.subject)

    @property
    def key(self) -> MachineKey | None:
        """The identity of the machine that it is about, if it is about one."""
        bearer = self.machine or self.instance
        return bearer.key if bearer is not None else None


@dataclass(frozen=True, slots=True)
class View:
    """One provider as the three lists show it, at the moment `now` (seconds since the epoch).

    `states` are the waves, of any provider, that have a state, None when that is not known; `past`
    the instances' uids that the books know as gone, with the instance ids they had; `dead` the
    owners and holders that are no more; `applying` the waves that are being applied, and `running`
    those whose Terraform still runs; `keys` the uids whose host key is known.
    """

    provider: str
    now: float
    machines: Sequence[Machine]
    instances: Sequence[Instance]
    states: Collection[str] | None
    past: Mapping[str, str] = field(default_factory=dict)
    dead: Collection[str] = ()
    applying: Mapping[str, Wave] = field(default_factory=dict)
    running: Collection[str] = ()
    keys: Collection[str] = ()


def compare(view: View, minimum_age: float) -> Sequence[Finding]:
    """What disagrees, suspects first. `minimum_age` in seconds: what is younger may yet fit."""
    return [
        *_unknown(view, minimum_age),
        *_abandoned(view),
        *_known(view, minimum_age),
    ]


def idle_states(
    states: Mapping[str, float],
    needed: Collection[str],
    providers: Callable[[str], str],
    minimum_age: float,
) -> Sequence[Finding]:
    """The waves whose state nobody needs, of those that have one and how old it is (seconds).

    `needed` are the waves of machines, instances and applies; `providers` tells whose a wave is.
    """
    return [
        Finding(
            Kind.STATE,
            Action.WAIT if age < minimum_age else Action.DISCARD,
            providers(wave),
            wave,
            "no machine needs it",
        )
        for wave, age in states.items()
        if wave not in needed
    ]


def _unknown(view: View, minimum_age: float) -> Iterator[Finding]:
    """Instances that no live machine of the ledger accounts for."""
    booked = {machine.uid: machine.instance_id for machine in view.machines}
    named = {machine.key for machine in view.machines}
    for instance in view.instances:
        original = booked.get(instance.uid)
        if instance.status not in PRESENT:
            continue
        if original is not None:
            if instance.may_be(original):
                continue
            verdict = _copy_of(original)
        else:
            verdict = _judge(instance, view, named, minimum_age)
        kind, action, detail = verdict
        yield Finding(kind, action, view.provider, instance.instance_id, detail, instance=instance)


def _copy_of(original: str) -> tuple[Kind, Action, str]:
    return Kind.DAMAGED, Action.TELL, f"a copy of {original}, by its tags"


def _judge(
    instance: Instance, view: View, named: Collection[MachineKey], minimum_age: float
) -> tuple[Kind, Action, str]:
    """What becomes of an instance that the ledger does not know as alive."""
    age = view.now - instance.created.timestamp()
    if instance.faults:
        faults = ", ".join(instance.faults)
        return Kind.DAMAGED, Action.TELL, f"{faults}; destroy it by name if it is yours"
    if instance.uid in view.past:
        original = view.past[instance.uid]
        if instance.may_be(original):
            return Kind.LEFTOVER, Action.DESTROY, "gone on the books"
        return _copy_of(original)
    if age < minimum_age:
        return Kind.ORPHAN, Action.WAIT, f"{age:.0f} s old: not judged yet"
    if instance.expires.timestamp() <= view.now:
        return Kind.ORPHAN, Action.DESTROY, "expired"
    if instance.key in named:
        return Kind.ORPHAN, Action.DESTROY, "another machine has its identity"
    if instance.uid not in view.keys:
        return Kind.ORPHAN, Action.DESTROY, "its host key is not known here"
    return Kind.ORPHAN, Action.ADOPT, f"wave {instance.wave}"


def _abandoned(view: View) -> Iterator[Finding]:
    for name, wave in view.applying.items():
        if wave.owner in view.dead:
            runs = name in view.running
            action = Action.WAIT if runs else Action.FINISH
            detail = "its Terraform still runs" if runs else "whoever applied it died"
            yield Finding(Kind.ABANDONED, action, view.provider, name, detail)


def _known(view: View, minimum_age: float) -> Iterator[Finding]:
    """Machines of the ledger, against the cloud and the clock."""
    shown = {instance.uid for instance in view.instances if instance.status in PRESENT}
    states = {m.wave for m in view.machines} if view.states is None else view.states
    for machine in view.machines:
        fate = _fate(machine, view, shown, minimum_age)
        if fate is None and machine.uid in shown and machine.wave not in states:
            fate = (Kind.NO_STATE, Action.TELL, f"wave {machine.wave}")
        if fate is not None:
            kind, action, detail = fate
            subject = machine.instance_id or machine.uid
            yield Finding(kind, action, view.provider, subject, detail, machine)


def _fate(
    machine: Machine, view: View, shown: Collection[str], minimum_age: float
) -> tuple[Kind, Action, str] | None:
    still = view.now - machine.changed_at
    if machine.state is State.DESTROYING:
        return Kind.UNFINISHED, Action.DESTROY, f"destroying for {still:.0f} s"
    if machine.expires_at <= view.now:
        return Kind.EXPIRED, Action.DESTROY, f"{view.now - machine.expires_at:.0f} s ago"
    if machine.holder in view.dead:
        return Kind.DESERTED, Action.DESTROY, "the process that asked for it is dead"
    if machine.state is State.FAILED:
        if still < minimum_age:
            return None
        return Kind.FAILED, Action.DESTROY, f"{machine.reason}: {machine.detail}"
    if machine.state is State.REQUESTED or machine.wave in view.applying:
        return None
    if machine.state is State.LEASED and any(i.uid == machine.uid for i in view.instances):
        return None  # an image is made of it, say, for which Google stops it
    if machine.uid not in shown and still >= minimum_age:
        return Kind.LOST, Action.STRIKE, f"absent from {view.provider}"
    return None
