"""What counts as wrong, and what is done about it."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from tango_cloud.core.lifecycle import Reason, State
from tango_cloud.core.model import (
    Instance,
    InstanceStatus,
    Machine,
    MachineKey,
    Shape,
    Wave,
    WaveState,
)
from tango_cloud.orchestration.findings import Action, Kind, View, compare, idle_states

NOW = 2_000_000.0
OLD, YOUNG = NOW - 3600, NOW - 5
MINIMUM_AGE = 600.0
KEY = MachineKey("prod", 1000, "local")
WAVE = Wave("b" * 12, "prod", "fake", WaveState.APPLYING, "owner", 0, 0.0, OLD)

MACHINE = Machine(
    uid="a" * 12,
    key=KEY,
    state=State.READY,
    reason=Reason.NONE,
    detail="",
    provider="fake",
    shape=Shape("fake.img"),
    attempt=0,
    offer=0,
    holder="",
    wave=WAVE.wave,
    instance_id="i-1",
    address="192.0.2.1",
    port=22,
    username="tango",
    host_key="ssh-ed25519 key",
    host_key_next="",
    created_at=OLD,
    changed_at=OLD,
    expires_at=NOW + 3600,
)
INSTANCE = Instance(
    instance_id="i-1",
    key=KEY,
    uid=MACHINE.uid,
    wave=WAVE.wave,
    image="fake.img",
    status=InstanceStatus.RUNNING,
    address="192.0.2.1",
    port=22,
    username="tango",
    zone="here",
    instance_type="small",
    created=dt.datetime.fromtimestamp(OLD, dt.UTC),
    expires=dt.datetime.fromtimestamp(NOW + 3600, dt.UTC),
)
AGREED = View("fake", NOW, [MACHINE], [INSTANCE], states={WAVE.wave})
ORPHANED = replace(AGREED, machines=[])


def _found(view: View) -> list[tuple[Kind, Action]]:
    return [(finding.kind, finding.action) for finding in compare(view, MINIMUM_AGE)]


def test_what_agrees_is_not_found() -> None:
    assert _found(AGREED) == []


def test_a_young_unknown_instance_is_not_judged() -> None:
    young = replace(INSTANCE, created=dt.datetime.fromtimestamp(YOUNG, dt.UTC))
    assert _found(replace(ORPHANED, instances=[young])) == [(Kind.ORPHAN, Action.WAIT)]


def test_an_orphan_whose_key_is_known_is_adopted_any_other_destroyed() -> None:
    assert _found(replace(ORPHANED, keys={INSTANCE.uid})) == [(Kind.ORPHAN, Action.ADOPT)]
    assert _found(ORPHANED) == [(Kind.ORPHAN, Action.DESTROY)]


def test_an_orphan_with_a_known_key_is_destroyed_when_it_is_of_no_use() -> None:
    twin = replace(INSTANCE, instance_id="i-2", uid="c" * 12)
    expired = replace(INSTANCE, expires=dt.datetime.fromtimestamp(NOW - 1, dt.UTC))
    for view in (
        replace(AGREED, instances=[INSTANCE, twin], keys={twin.uid}),
        replace(ORPHANED, instances=[expired], keys={INSTANCE.uid}),
    ):
        assert _found(view) == [(Kind.ORPHAN, Action.DESTROY)]


def test_what_came_up_after_it_was_given_up_is_destroyed_at_once() -> None:
    young = replace(INSTANCE, created=dt.datetime.fromtimestamp(YOUNG, dt.UTC))
    view = replace(ORPHANED, instances=[young], past={INSTANCE.uid: ""}, keys={INSTANCE.uid})
    assert _found(view) == [(Kind.LEFTOVER, Action.DESTROY)]
    view = replace(view, past={INSTANCE.uid: INSTANCE.instance_id})
    assert _found(view) == [(Kind.LEFTOVER, Action.DESTROY)]


def test_damaged_tags_are_only_told() -> None:
    damaged = replace(INSTANCE, uid="i-1", faults=("tango-uid",))
    assert _found(replace(ORPHANED, instances=[damaged])) == [(Kind.DAMAGED, Action.TELL)]


def test_a_copy_of_a_machine_is_only_told() -> None:
    """ "Launch more like this" copies every tag."""
    copy = replace(INSTANCE, instance_id="i-copy")
    assert _found(replace(AGREED, instances=[INSTANCE, copy])) == [(Kind.DAMAGED, Action.TELL)]
    survivor = replace(ORPHANED, instances=[copy], past={INSTANCE.uid: INSTANCE.instance_id})
    assert _found(survivor) == [(Kind.DAMAGED, Action.TELL)]
    unseen = replace(MACHINE, instance_id="")
    assert _found(replace(AGREED, machines=[unseen])) == []


def test_what_shuts_down_is_no_orphan() -> None:
    leaving = replace(INSTANCE, status=InstanceStatus.STOPPING)
    assert _found(replace(ORPHANED, instances=[leaving])) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"state": State.DESTROYING}, (Kind.UNFINISHED, Action.DESTROY)),
        ({"expires_at": NOW}, (Kind.EXPIRED, Action.DESTROY)),
        ({"state": State.REQUESTED, "expires_at": NOW}, (Kind.EXPIRED, Action.DESTROY)),
        ({"holder": "dead"}, (Kind.DESERTED, Action.DESTROY)),
        ({"state": State.FAILED}, (Kind.FAILED, Action.DESTROY)),
    ],
)
def test_a_machine_that_must_go(change: dict[str, object], found: tuple[Kind, Action]) -> None:
    machine = replace(MACHINE, **change)  # type: ignore[arg-type]
    assert _found(replace(AGREED, machines=[machine], dead={"dead"})) == [found]


@pytest.mark.parametrize(
    "change",
    [
        {"state": State.LEASED},
        {"holder": "alive"},
        {"state": State.FAILED, "changed_at": YOUNG},
    ],
)
def test_a_machine_that_may_stay(change: dict[str, object]) -> None:
    machine = replace(MACHINE, **change)  # type: ignore[arg-type]
    assert _found(replace(AGREED, machines=[machine], dead={"dead"})) == []


def test_a_machine_that_the_cloud_does_not_show_is_lost_unless_it_may_yet_come() -> None:
    absent = replace(AGREED, instances=[])
    assert _found(absent) == [(Kind.LOST, Action.STRIKE)]
    assert _found(replace(absent, applying={WAVE.wave: WAVE})) == []
    young = replace(MACHINE, changed_at=YOUNG)
    assert _found(replace(absent, machines=[young])) == []
    intent = replace(MACHINE, state=State.REQUESTED, wave="")
    assert _found(replace(absent, machines=[intent])) == []


def test_a_dead_owners_wave_is_finished_once_its_terraform_has_ended() -> None:
    view = replace(AGREED, applying={WAVE.wave: WAVE}, dead={"owner"})
    assert _found(view) == [(Kind.ABANDONED, Action.FINISH)]
    assert _found(replace(view, running={WAVE.wave})) == [(Kind.ABANDONED, Action.WAIT)]
    assert _found(replace(view, dead=())) == []


def test_a_machine_without_state_is_only_told() -> None:
    assert _found(replace(AGREED, states=())) == [(Kind.NO_STATE, Action.TELL)]


def test_states_that_nobody_needs_are_discarded_once_they_are_old() -> None:
    found = idle_states({"old": 700.0, "young": 5.0, "used": 700.0}, {"used"}, str, MINIMUM_AGE)
    assert [(f.subject, f.action) for f in found] == [
        ("old", Action.DISCARD),
        ("young", Action.WAIT),
    ]


def test_a_machine_that_a_job_holds_is_not_lost_while_its_cloud_lists_it_at_all() -> None:
    """It is stopped while an image is made of it, say."""
    held = replace(MACHINE, state=State.LEASED)
    stopped = replace(INSTANCE, status=InstanceStatus.STOPPING)
    view = replace(AGREED, machines=[held], instances=[stopped])
    assert _found(view) == []
    assert _found(replace(view, instances=[])) == [(Kind.LOST, Action.STRIKE)]
