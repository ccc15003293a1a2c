"""Reconciliation: what disagrees is looked at twice, mended, and then agrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tango_cloud.core.errors import ProviderUnavailable, TerraformError
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.lifecycle import Reason, State
from tango_cloud.core.model import Machine, MachineKey
from tango_cloud.orchestration.findings import Action, Finding, Kind
from tango_cloud.orchestration.mending import Outcome

from ..waiting import wait_until
from .conftest import KEY, MINIMUM_AGE, SHAPE, Rig, book, build_rig, ready, state_of


def _run(rig: Rig) -> dict[Kind, str]:
    """What was found, each with what went wrong in mending it."""
    return {outcome.finding.kind: outcome.error for outcome in rig.reconciler.run()}


def _ready(rig: Rig, key: MachineKey = KEY) -> Machine:
    """Ready, and its apply is over."""
    machine = ready(rig, key)
    _wait_for_applies(rig)
    return machine


def _wait_for_applies(rig: Rig) -> None:
    wait_until(lambda: not rig.ledger.waves.applying("prod"))


def _later(rig: Rig) -> None:
    rig.ahead += MINIMUM_AGE + 1


@pytest.fixture
def other(rig: Rig, tmp_path: Path) -> Rig:
    """The same cloud, by a ledger that knows nothing of it, in the same folder."""
    folder = tmp_path / "anew"
    folder.mkdir()
    ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite3'}", folder)
    return build_rig(ledger, rig.cloud, rig.transport, tmp_path)


def test_there_is_nothing_to_do_when_all_agrees(rig: Rig) -> None:
    _ready(rig)
    _later(rig)
    assert _run(rig) == {}


def test_a_lost_machine_is_struck_off_and_asked_for_anew_by_who_needs_it(rig: Rig) -> None:
    machine = _ready(rig)
    rig.cloud.alive.clear()
    assert _run(rig) == {}, "clouds answer late"
    _later(rig)
    rig.transport.reachable = lambda _: False
    assert _run(rig) == {Kind.LOST: ""}
    now = rig.ledger.machines.get(machine.uid)
    assert now is not None
    assert (now.state, now.reason) == (State.GONE, Reason.LOST)
    assert rig.cloud.discarded == [machine.wave]
    rig.transport.reachable = lambda _: True
    assert rig.fleet.wait(KEY, 10).uid != machine.uid


def test_who_answers_is_not_lost_whatever_the_listings_lack(rig: Rig) -> None:
    machine = _ready(rig)
    rig.cloud.hidden.add(machine.instance_id)
    _later(rig)
    assert _run(rig) == {Kind.LOST: "it answers, though the cloud does not show it"}
    assert state_of(rig, machine) is State.READY
    assert rig.cloud.alive


def test_who_is_back_at_the_second_look_is_not_lost(rig: Rig) -> None:
    machine = _ready(rig)
    instances = dict(rig.cloud.alive)
    rig.cloud.alive.clear()
    rig.cloud.between_looks = lambda: rig.cloud.alive.update(instances)
    _later(rig)
    assert _run(rig) == {}
    assert state_of(rig, machine) is State.READY


def test_a_lost_ledger_is_made_again_from_the_tags(rig: Rig, other: Rig) -> None:
    machine = _ready(rig)
    [outcome] = other.reconciler.recover()
    assert (outcome.finding.kind, outcome.finding.action) == (Kind.ORPHAN, Action.ADOPT)
    assert other.fleet.wait(KEY, 10).uid == machine.uid
    assert other.reconciler.recover() == []
    _later(other)
    assert _run(other) == {}
    other.fleet.destroy_and_wait(KEY, 10)
    assert not rig.cloud.alive


def test_recovery_destroys_nothing(rig: Rig, other: Rig) -> None:
    _ready(rig)
    rig.host_keys.forget(rig.host_keys.uids())
    [outcome] = other.reconciler.recover()
    assert outcome.finding.action is Action.TELL
    assert rig.cloud.alive


def test_an_orphan_that_cannot_be_trusted_is_destroyed_but_not_while_it_is_young(
    rig: Rig, other: Rig
) -> None:
    _ready(rig)
    rig.host_keys.forget(rig.host_keys.uids())
    assert _run(other) == {Kind.ORPHAN: ""}
    assert rig.cloud.alive
    _later(other)
    assert _run(other) == {Kind.ORPHAN: "", Kind.STATE: ""}
    assert not rig.cloud.alive


def test_what_is_not_quite_ours_is_told_and_left_alone(rig: Rig) -> None:
    machine = _ready(rig)
    instance = rig.cloud.alive[machine.instance_id]
    rig.cloud.alive["i-hand"] = replace(
        instance, instance_id="i-hand", uid="i-hand", faults=("tango-uid",)
    )
    rig.cloud.alive["i-other"] = replace(
        instance, instance_id="i-other", key=MachineKey("prod-2", 1000, "local"), uid="f" * 12
    )
    _later(rig)
    assert _run(rig) == {Kind.DAMAGED: ""}
    assert set(rig.cloud.alive) == {machine.instance_id, "i-hand", "i-other"}
    assert not rig.cloud.terminated


def test_a_machine_of_a_dead_process_goes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = rig.fleet.request_next(SHAPE, 3600)
    rig.fleet.wait(machine.key, 10)
    _wait_for_applies(rig)
    assert _run(rig) == {}
    monkeypatch.setattr(rig.ledger.owners, "alive", lambda owner: owner != machine.holder)
    assert _run(rig) == {Kind.DESERTED: ""}
    assert not rig.cloud.alive


def test_a_machine_that_is_to_be_kept_outlives_who_asked_for_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = rig.fleet.request_next(SHAPE, 3600, keep=True)
    rig.fleet.wait(machine.key, 10)
    _wait_for_applies(rig)
    monkeypatch.setattr(rig.ledger.owners, "alive", lambda _owner: False)
    assert _run(rig) == {}


def test_expired_machines_go_together(rig: Rig) -> None:
    machines = [_ready(rig, MachineKey("prod", n, "local")) for n in range(3)]
    rig.ahead = 3601
    assert _run(rig) == {Kind.EXPIRED: ""}
    assert not rig.cloud.alive
    assert {state_of(rig, machine) for machine in machines} == {State.GONE}


def test_a_cloud_that_cannot_be_asked_ends_the_pass(rig: Rig) -> None:
    _ready(rig)
    _later(rig)
    rig.cloud.unavailable = True
    with pytest.raises(ProviderUnavailable):
        rig.reconciler.run()
    rig.cloud.unavailable = False
    assert _run(rig) == {}


def test_what_cannot_be_mended_is_told_and_the_rest_is_done(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = (_ready(rig, MachineKey("prod", n, "local")) for n in range(2))
    rig.ledger.machines.move(stuck.uid, State.DESTROYING)
    rig.ledger.machines.move(other.uid, State.DESTROYING)
    rig.cloud.immortal.add(stuck.instance_id)
    rig.reconciler._mending._gone_seconds = 0.2
    mended: list[str] = []
    mend = rig.reconciler._mending.mend

    def noting(findings: Sequence[Finding]) -> Sequence[Outcome]:
        mended.extend(finding.subject for finding in findings)
        return mend(findings)

    monkeypatch.setattr(rig.reconciler._mending, "mend", noting)
    outcomes = {o.finding.subject: o.error for o in rig.reconciler.run()}
    assert mended.count(stuck.instance_id) == 1, "in one pass it is waited for once"
    assert "still there" in outcomes[stuck.instance_id]
    assert not outcomes[other.instance_id]
    assert state_of(rig, other) is State.GONE
    assert state_of(rig, stuck) is State.DESTROYING


def test_host_keys_of_machines_that_are_no_more_are_forgotten(rig: Rig) -> None:
    kept, gone = (_ready(rig, MachineKey("prod", n, "local")) for n in range(2))
    rig.fleet.destroy_and_wait(gone.key, 10)
    _run(rig)
    newest = rig.ledger.machines.get(kept.uid)
    assert newest is not None
    known = rig.host_keys.known(kept.uid)
    assert known is not None
    assert known[0] == newest.host_key
    assert rig.host_keys.known(gone.uid) is None


def test_a_key_that_comes_while_others_are_forgotten_is_kept(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = rig.ledger.machines.all_live
    newest: list[str] = []

    def look_and_be_late(deployment: str) -> Sequence[Machine]:
        """A machine is booked, and its key kept, right after the books were read."""
        found = look(deployment)
        machine = book(rig, MachineKey("prod", 2000 + len(newest), "local"))
        rig.host_keys.expect(machine.uid, "ssh-ed25519 its-own")
        newest.append(machine.uid)
        return found

    monkeypatch.setattr(rig.ledger.machines, "all_live", look_and_be_late)
    _run(rig)
    assert rig.host_keys.known(newest[-1]) is not None


def test_the_story_of_a_machine_tells_why_it_had_to_go(rig: Rig) -> None:
    machine = _ready(rig)
    rig.ahead += machine.expires_at
    assert _run(rig) == {Kind.EXPIRED: ""}
    *_, going, gone = rig.fleet.history(machine.uid)
    assert (going.event, gone.event) == (State.DESTROYING, State.GONE)
    assert going.detail.startswith("expired: ")
    assert gone.detail == going.detail


def test_states_that_cannot_be_listed_hold_up_nothing_else(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = _ready(rig)
    rig.ahead += machine.expires_at

    def fail() -> Mapping[str, float]:
        raise TerraformError(["workspace", "list"], 1, "", ["no such bucket"])

    monkeypatch.setattr(rig.cloud, "waves", fail)
    found = _run(rig)
    assert found[Kind.EXPIRED] == ""
    assert "no such bucket" in found[Kind.STATES]
    assert found.keys() == {Kind.EXPIRED, Kind.STATES}
    assert not rig.cloud.alive


def test_another_hosts_process_is_dead_only_if_it_stays_silent(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock may be a minute behind ours."""
    with monkeypatch.context() as there:
        there.setattr("tango_cloud.core.ledger.waves._this_host", lambda: "there booted-once")
        rig.ledger.owners.beat("far")
    monkeypatch.setattr("tango_cloud.core.ledger.waves.SILENT_SECONDS", 0.0)
    machine = rig.ledger.machines.request(KEY, "fake", SHAPE, 60, holder="far")[0]
    rig.cloud.between_looks = lambda: rig.ledger.owners.beat("far")
    assert _run(rig) == {}
    assert state_of(rig, machine) is State.REQUESTED
    rig.cloud.between_looks = lambda: None
    assert _run(rig) == {Kind.DESERTED: ""}
