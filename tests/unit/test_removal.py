"""What goes: asked of the cloud first, the state follows, and nothing is given up."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tango_cloud.core.errors import NotGoneInTime
from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import Machine, MachineKey, Rate, WaveState

from ..waiting import wait_until
from .conftest import KEY, SHAPE, Rig, book, ready, request, state_of

OTHER = MachineKey("prod", 2000, "local")


def test_destroying_asks_the_cloud_and_the_state_follows(rig: Rig) -> None:
    keys = [MachineKey("prod", n, "local") for n in (1000, 1001)]
    for key in keys:
        book(rig, key)  # both before anyone looks, so that one wave makes both
    machines = [rig.fleet.wait(key, 10) for key in keys]
    assert len({machine.wave for machine in machines}) == 1
    rig.fleet.destroy_and_wait(keys[0], 10)
    assert rig.cloud.terminated == [machines[0].instance_id]
    # At once, or at the end of the wave's apply, when that has not quite ended yet.
    wait_until(lambda: rig.cloud.forgotten == {machines[0].uid})
    assert not rig.cloud.discarded
    rig.fleet.destroy_and_wait(keys[1], 10)
    wait_until(lambda: set(rig.cloud.discarded) == {machines[0].wave})


def test_no_more_are_removed_than_a_cloud_lets_us_ask_for(rig: Rig) -> None:
    keys = [MachineKey("prod", n, "local") for n in range(5)]
    for key in keys:
        book(rig, key)
    machines = [rig.fleet.wait(key, 10) for key in keys]
    for machine in machines:
        rig.ledger.machines.move(machine.uid, State.DESTROYING)
    rig.cloud.removal_rate = Rate(burst=2, per_second=0.001)
    left = rig.waves.remove(machines[0].wave, "fake", machines)
    assert len(rig.cloud.terminated) == 2
    assert len(left) == 3
    assert {m.uid for m in machines if state_of(rig, m) is State.DESTROYING} == left


def test_a_machine_that_shuts_down_slowly_is_looked_after_until_it_is_gone(rig: Rig) -> None:
    machine = ready(rig)
    rig.cloud.slow.add(machine.instance_id)
    rig.fleet.destroy(KEY)
    wait_until(lambda: rig.cloud.terminated == [machine.instance_id])
    assert state_of(rig, machine) is State.DESTROYING
    del rig.cloud.alive[machine.instance_id]
    wait_until(lambda: state_of(rig, machine) is State.GONE)
    assert rig.cloud.terminated == [machine.instance_id], "asked once: it was shutting down"


def test_a_machine_is_removed_while_its_wave_is_still_applied(rig: Rig) -> None:
    finish = threading.Event()
    rig.cloud.after_apply = lambda: finish.wait(10)
    try:
        machine = ready(rig)
        rig.fleet.destroy_and_wait(KEY, 5)
        assert state_of(rig, machine) is State.GONE
        assert not rig.cloud.discarded, "Terraform holds the state"
        # It has nothing left to make.
        wait_until(lambda: rig.cloud.interrupted == [machine.wave])
    finally:
        finish.set()
    wait_until(lambda: machine.wave in rig.cloud.discarded)


def test_a_machine_that_shuts_down_slowly_is_gone_before_its_wave_is_applied(rig: Rig) -> None:
    """As on a real cloud: one listing shows it shutting down, and a later one not at all."""
    finish = threading.Event()
    rig.cloud.after_apply = lambda: finish.wait(10)
    try:
        machine = ready(rig)
        rig.cloud.slow.add(machine.instance_id)
        rig.fleet.destroy(KEY)
        wait_until(lambda: rig.cloud.terminated == [machine.instance_id])
        del rig.cloud.alive[machine.instance_id]
        rig.fleet.destroy_and_wait(KEY, 10)
        wait_until(lambda: rig.cloud.interrupted == [machine.wave])
    finally:
        finish.set()


def test_a_wave_that_ends_while_its_last_machine_is_removed_is_discarded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end does not see yet that the machine is gone, its removal not yet that it has ended."""
    ended, removed = threading.Event(), threading.Event()
    rig.cloud.after_apply = lambda: ended.wait(10)
    machine = ready(rig)
    terminate = rig.cloud.terminate

    def slowly(instance_ids: Iterable[str]) -> None:
        terminate(instance_ids)
        ended.set()
        wait_until(lambda: _wave_state(rig, machine) is not WaveState.APPLYING)
        removed.set()

    monkeypatch.setattr(rig.cloud, "terminate", slowly)
    rig.fleet.destroy_and_wait(KEY, 10)
    assert removed.is_set()
    wait_until(lambda: machine.wave in rig.cloud.discarded)


def hold_applies(rig: Rig) -> tuple[threading.Event, threading.Event]:
    """Set once an apply has begun; to be set for it to go on."""
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go_on.wait(10)

    rig.cloud.before_apply = hold
    return begun, go_on


def test_a_machine_that_may_yet_come_up_is_not_called_gone(rig: Rig) -> None:
    applying, create = hold_applies(rig)
    try:
        machine = request(rig)
        assert applying.wait(10)
        with pytest.raises(NotGoneInTime):
            rig.fleet.destroy_and_wait(KEY, 0.3)
    finally:
        create.set()
    wait_until(lambda: state_of(rig, machine) is State.GONE)
    assert not rig.cloud.alive


def test_a_machine_claimed_by_a_wave_just_before_it_is_destroyed_is_not_called_gone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    applying, create = hold_applies(rig)
    intent = book(rig, KEY)
    live = rig.ledger.machines.live

    def overtaken(key: MachineKey) -> Machine | None:
        found = live(key)
        rig.committer.kick_creation()
        assert applying.wait(10)
        return found

    monkeypatch.setattr(rig.ledger.machines, "live", overtaken)
    rig.fleet.destroy(KEY)
    monkeypatch.undo()
    try:
        with pytest.raises(NotGoneInTime):
            rig.fleet.destroy_and_wait(KEY, 0.3)
    finally:
        create.set()
    wait_until(lambda: state_of(rig, intent) is State.GONE)
    assert not rig.cloud.alive


def test_an_instance_that_will_not_die_stays_on_the_books(rig: Rig) -> None:
    machine = ready(rig)
    rig.cloud.immortal.add(machine.instance_id)
    with pytest.raises(NotGoneInTime, match="stays on the books"):
        rig.fleet.destroy_and_wait(KEY, 0.5)
    assert [entry.state for entry in rig.fleet.entries()] == [State.DESTROYING]


def test_removal_that_fails_is_tried_again_ever_more_slowly(rig: Rig) -> None:
    machine = ready(rig)
    rig.cloud.immortal.add(machine.instance_id)
    with pytest.raises(NotGoneInTime):
        rig.fleet.destroy_and_wait(KEY, 0.6)
    assert len(rig.cloud.terminated) <= 6


def test_many_who_wait_for_one_removal_do_not_make_the_cloud_be_asked_more(rig: Rig) -> None:
    machine = ready(rig)
    rig.cloud.slow.add(machine.instance_id)
    before = rig.cloud.listings

    def wait() -> bool:
        with pytest.raises(NotGoneInTime):
            rig.fleet.destroy_and_wait(KEY, 0.6)
        return True

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(lambda _: wait(), range(20)))
    assert rig.cloud.listings - before < 10


def test_a_machine_that_the_listing_lacks_is_removed_by_the_id_it_had(rig: Rig) -> None:
    """A listing may be late, or lack a page."""
    machine = ready(rig)
    rig.cloud.hidden.add(machine.instance_id)
    rig.fleet.destroy_and_wait(KEY, 10)
    assert rig.cloud.terminated == [machine.instance_id]
    assert not rig.cloud.alive


def test_a_machine_that_no_listing_has_shown_yet_is_removed_by_the_id_that_its_apply_told(
    rig: Rig,
) -> None:
    machine = book(rig, KEY)
    rig.cloud.hidden.add(f"i-{machine.uid}")
    rig.committer.kick_creation()
    wait_until(lambda: rig.cloud.applies)
    rig.fleet.destroy_and_wait(KEY, 10)
    assert rig.cloud.terminated == [f"i-{machine.uid}"]
    assert not rig.cloud.alive


def test_what_the_listing_lacks_and_could_not_be_asked_for_yet_is_not_called_gone(rig: Rig) -> None:
    keys = [MachineKey("prod", n, "local") for n in range(2)]
    for key in keys:
        book(rig, key)
    machines = [rig.fleet.wait(key, 10) for key in keys]
    # While it is applied, one that is not shown may yet come up.
    wait_until(lambda: not rig.ledger.waves.applying("prod"))
    rig.cloud.hidden.update(machine.instance_id for machine in machines)
    for machine in machines:
        rig.ledger.machines.move(machine.uid, State.DESTROYING)
    rig.cloud.removal_rate = Rate(burst=1, per_second=0.001)
    left = rig.waves.remove(machines[0].wave, "fake", machines)
    assert len(rig.cloud.terminated) == 1
    assert {instance.uid for instance in rig.cloud.alive.values()} == left


def test_destroying_the_unknown_is_success(rig: Rig) -> None:
    rig.fleet.destroy_and_wait(KEY, 1)


def test_an_orphan_of_the_same_identity_is_destroyed_too(rig: Rig) -> None:
    machine = ready(rig)
    rig.ledger.machines.move(machine.uid, State.GONE)
    assert [entry.state for entry in rig.fleet.entries()] == ["orphan"]
    assert rig.fleet.exists(KEY)
    rig.fleet.destroy_and_wait(KEY, 10)
    assert not rig.cloud.alive


def test_an_intent_destroyed_before_its_wave_makes_no_machine(rig: Rig) -> None:
    rig.ledger.machines.request(KEY, "fake", SHAPE, 60)
    rig.fleet.destroy_and_wait(KEY, 10)
    assert not rig.cloud.alive
    assert not any(rig.cloud.applies)


def _wave_state(rig: Rig, machine: Machine) -> WaveState:
    wave = rig.ledger.waves.get(machine.wave)
    assert wave is not None
    return wave.state


def test_a_copy_of_a_machine_outlives_it(rig: Rig) -> None:
    """ "Launch more like this" copies every tag: whose it is cannot be known."""
    machine = ready(rig)
    rig.cloud.alive["i-copy"] = replace(rig.cloud.alive[machine.instance_id], instance_id="i-copy")
    rig.fleet.destroy_and_wait(KEY, 10)
    rig.fleet.destroy_and_wait(KEY, 10)
    assert list(rig.cloud.alive) == ["i-copy"]
    assert not rig.fleet.exists(KEY)


def test_a_cloud_that_is_no_longer_set_up_is_not_asked(rig: Rig) -> None:
    """An identity may have lived there before the settings were changed."""
    before = rig.ledger.machines.request(KEY, "before", SHAPE, 60)[0]
    rig.ledger.machines.move(before.uid, State.DESTROYING)
    rig.ledger.machines.move(before.uid, State.GONE)
    rig.fleet.destroy_and_wait(KEY, 10)
    assert not rig.fleet.exists(KEY)


def test_what_was_ended_without_being_on_the_books_has_a_story(rig: Rig) -> None:
    machine = ready(rig)
    instance = rig.cloud.alive[machine.instance_id]
    stranger = replace(instance, instance_id="i-stranger", uid="a" * 12, key=OTHER)
    rig.cloud.alive = {"i-stranger": stranger}
    rig.fleet.destroy_and_wait(OTHER, 10)
    (event,) = rig.fleet.history(OTHER.instance_name)
    assert (event.event, "i-stranger" in event.detail) == ("terminated", True)
