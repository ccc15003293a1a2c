"""The fleet's promises, on a cloud that goes wrong on order."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tango_cloud.core.errors import (
    Cancelled,
    CapacityError,
    HostKeyMismatch,
    MachineDamaged,
    MachineNotFound,
    MachineUnreachable,
    NotGoneInTime,
    NotReadyInTime,
    ProviderUnavailable,
    ProvisioningError,
    QuotaError,
    TangoCloudError,
    TerraformKilled,
)
from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import (
    Endpoint,
    Machine,
    MachineKey,
    MachineRequest,
    Market,
)

from .conftest import KEY, Rig, book, build_rig, ready, request, state_of
from .fakes import FakeCloud, FakeSession


def test_a_machine_becomes_ready_and_its_bootstrap_key_is_replaced(rig: Rig) -> None:
    machine = ready(rig)
    assert machine.state is State.READY
    assert (machine.host_key, machine.host_key_next) == ("ssh-ed25519 fresh", "")
    assert rig.transport.activated == 1
    assert rig.transport.sessions[0].endpoint.host_keys[0].startswith("ssh-ed25519 AAAA")


def test_a_key_that_the_machine_has_made_is_asked_of_the_cloud_once_it_listens(rig: Rig) -> None:
    rig.cloud.own_host_keys = True
    rig.transport.listening = False
    machine = request(rig)
    rig.cloud.host_keys = {f"i-{machine.uid}": "ssh-ed25519 published"}
    with pytest.raises(NotReadyInTime, match="SSH"):
        rig.fleet.wait(KEY, 1)
    assert not rig.transport.sessions, "nobody is talked to who cannot be verified"
    rig.transport.listening = True
    rig.fleet.wait(KEY, 10)
    assert rig.transport.sessions[0].endpoint.host_keys == ("ssh-ed25519 published",)


def test_a_burst_of_requests_costs_few_applies(rig: Rig) -> None:
    keys = [MachineKey("prod", 1000 + n, "local") for n in range(50)]
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda key: ready(rig, key), keys))
    assert sum(len(apply) for apply in rig.cloud.applies) == 50
    assert len(rig.cloud.applies) < 25


def test_asking_twice_makes_one_machine(rig: Rig) -> None:
    assert request(rig).uid == request(rig).uid
    rig.fleet.wait(KEY, 10)
    assert len(rig.cloud.alive) == 1


def test_another_process_knows_the_machine_by_its_identity_alone(rig: Rig, tmp_path: Path) -> None:
    request(rig)
    other = build_rig(rig.ledger, rig.cloud, rig.transport, tmp_path)
    machine = other.fleet.wait(KEY, 10)
    other.fleet.session(KEY).put([])
    other.fleet.destroy_and_wait(KEY, 10)
    other.fleet.close()
    assert machine.instance_id not in rig.cloud.alive


def test_nothing_is_kept_of_a_machine_that_another_process_removed(
    rig: Rig, tmp_path: Path
) -> None:
    other = build_rig(rig.ledger, rig.cloud, rig.transport, tmp_path)
    request(rig)
    other.fleet.wait(KEY, 10)
    rig.fleet.destroy_and_wait(KEY, 10)
    for session in rig.transport.sessions:
        session.closed = True  # by the machine's end
    kept = ready(other, MachineKey("prod", 1001, "local"))
    connections = other.fleet._connections
    assert [uid for uid, _ in connections._sessions] == [kept.uid]
    assert not connections._connecting
    other.fleet.close()
    assert not other.fleet._signals._signals


def test_a_lost_machine_is_made_again_under_the_same_identity(rig: Rig) -> None:
    first = ready(rig)
    rig.cloud.alive.clear()
    rig.transport.reachable = lambda endpoint: bool(rig.cloud.alive)
    second = rig.fleet.wait(KEY, 10)
    assert second.key == KEY
    assert second.uid != first.uid
    assert len(rig.cloud.alive) == 1


def test_a_machine_that_a_listing_lacks_is_looked_for_again_before_it_is_lost(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not answer at this moment, either."""
    monkeypatch.setattr("tango_cloud.orchestration.readiness._DOUBT_SECONDS", 60.0)
    machine = ready(rig)
    rig.cloud.hidden.add(machine.instance_id)
    rig.transport.reachable = lambda _: False
    with pytest.raises(NotReadyInTime, match="show it again"):
        rig.fleet.wait(KEY, 0.1)
    rig.cloud.hidden.clear()
    with pytest.raises(NotReadyInTime, match="SSH"):
        rig.fleet.wait(KEY, 0.1)
    rig.transport.reachable = lambda _: True
    assert rig.fleet.wait(KEY, 10).uid == machine.uid


def test_a_machine_destroyed_by_another_is_made_again_by_wait(rig: Rig) -> None:
    first = ready(rig)
    rig.fleet.destroy_and_wait(KEY, 10)
    assert rig.fleet.wait(KEY, 10).uid != first.uid


def test_a_machine_that_does_not_answer_but_exists_is_waited_for_in_vain(rig: Rig) -> None:
    rig.transport.reachable = lambda _: False
    request(rig)
    with pytest.raises(NotReadyInTime, match="SSH"):
        rig.fleet.wait(KEY, 1.0)
    assert len(rig.cloud.alive) == 1


def test_all_who_wait_for_a_boot_share_a_listing(rig: Rig) -> None:
    rig.transport.refuse = MachineUnreachable("it boots")
    machine = request(rig)

    def wait(seconds: float) -> bool:
        with pytest.raises(NotReadyInTime, match="SSH"):
            rig.fleet.wait(KEY, seconds)
        return True

    wait(0.5)
    assert state_of(rig, machine) is State.STARTING
    rig.cloud.poll_interval = 60.0
    before = rig.cloud.listings
    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(wait, [0.6] * 10))
    assert rig.cloud.listings == before


def test_a_wrong_host_key_fails_the_machine_for_good(rig: Rig) -> None:
    rig.transport.refuse = HostKeyMismatch("somebody else")
    request(rig)
    with pytest.raises(HostKeyMismatch):
        rig.fleet.wait(KEY, 10)
    rig.transport.refuse = None
    with pytest.raises(ProvisioningError, match="host-key"):
        rig.fleet.wait(KEY, 10)


def test_a_condemned_machine_is_not_handed_out_again_until_destroyed(rig: Rig) -> None:
    ready(rig)
    rig.fleet.condemn(KEY, "a process cannot be killed")
    with pytest.raises(MachineDamaged):
        rig.fleet.wait(KEY, 10)
    with pytest.raises(MachineUnreachable):
        rig.fleet.session(KEY)
    rig.fleet.destroy_and_wait(KEY, 10)
    ready(rig)


def test_one_machines_failure_leaves_its_neighbours_alone(rig: Rig) -> None:
    rig.cloud.refuse = lambda request: ProvisioningError("bad disk") if request.key == KEY else None
    others = [MachineKey("prod", 2000 + n, "local") for n in range(3)]
    for key in (KEY, *others):
        request(rig, key)
    with pytest.raises(ProvisioningError, match="bad disk"):
        rig.fleet.wait(KEY, 10)
    for key in others:
        assert rig.fleet.wait(key, 10).state is State.READY


def test_no_capacity_moves_on_to_the_next_offer(rig: Rig) -> None:
    def refuse(request: MachineRequest) -> TangoCloudError | None:
        return CapacityError("sold out") if request.offer.zone == "zone-0" else None

    rig.cloud.refuse = refuse
    machine = ready(rig)
    assert rig.cloud.alive[machine.instance_id].zone == "zone-1"


def test_no_capacity_anywhere_is_a_failure_that_says_so(rig: Rig) -> None:
    rig.cloud.refuse = lambda _: CapacityError("sold out")
    request(rig)
    with pytest.raises(ProvisioningError, match="sold out"):
        rig.fleet.wait(KEY, 10)
    assert len(rig.cloud.applies) == 2


def test_a_used_up_quota_moves_on_to_another_market_not_to_another_zone(rig: Rig) -> None:
    rig.cloud.markets = [Market.ON_DEMAND, Market.SPOT]
    refused = []

    def refuse(request: MachineRequest) -> TangoCloudError | None:
        if request.offer.market is Market.SPOT:
            return None
        refused.append(request.offer.zone)
        return QuotaError("no more vCPUs")

    rig.cloud.refuse = refuse
    ready(rig)
    assert refused == ["zone-0"]


def test_what_a_killed_terraform_has_not_made_is_asked_for_anew(rig: Rig) -> None:
    rig.cloud.apply_failure = TerraformKilled(["terraform", "apply"], None, "")

    def let_live() -> None:
        if rig.cloud.applies:
            rig.cloud.apply_failure = None

    rig.cloud.before_apply = let_live
    assert ready(rig).attempt == 1


def test_a_passing_fault_is_tried_again_and_then_given_up(rig: Rig) -> None:
    rig.cloud.apply_failure = ProviderUnavailable("500")
    request(rig)
    with pytest.raises(ProvisioningError, match="500"):
        rig.fleet.wait(KEY, 20)
    assert len(rig.cloud.applies) == 3


def test_a_cloud_that_cannot_be_asked_is_never_read_as_empty(rig: Rig) -> None:
    machine = ready(rig)
    rig.cloud.unavailable = True
    rig.transport.reachable = lambda _: False
    with pytest.raises(ProviderUnavailable):
        rig.fleet.entries()
    with pytest.raises(NotReadyInTime, match="the cloud to answer"):
        rig.fleet.wait(KEY, 0.3)
    with pytest.raises(NotGoneInTime):
        rig.fleet.destroy_and_wait(KEY, 0.3)
    now = rig.ledger.machines.get(machine.uid)
    assert now is not None
    assert now.state is State.DESTROYING, "it must stay on the books"
    rig.cloud.unavailable = False
    rig.fleet.destroy_and_wait(KEY, 10)
    assert not rig.cloud.alive


def test_a_machine_that_the_cloud_shows_is_kept_whatever_terraform_says(rig: Rig) -> None:
    """Terraform gave up asking about it, say; it may run a job by now."""

    def refuse(request: MachineRequest) -> TangoCloudError:
        rig.cloud.give(request)
        return ProvisioningError("could not be read back")

    rig.cloud.refuse = refuse
    machine = ready(rig)
    assert machine.attempt == 0
    assert not rig.cloud.terminated


def test_a_failed_apply_with_a_listing_that_fails_loses_and_destroys_nothing(rig: Rig) -> None:
    def refuse(request: MachineRequest) -> TangoCloudError:
        rig.cloud.give(request)
        rig.cloud.unavailable = True
        return ProviderUnavailable("the cloud is away")

    rig.cloud.refuse = refuse
    machine = request(rig)
    with pytest.raises(NotReadyInTime, match="the cloud to answer"):
        rig.fleet.wait(KEY, 0.5)
    assert state_of(rig, machine) is State.CREATING
    rig.cloud.unavailable = False
    assert rig.fleet.wait(KEY, 10).uid == machine.uid
    assert not rig.cloud.terminated


def test_deployments_never_see_each_other(rig: Rig, tmp_path: Path) -> None:
    ready(rig)
    other = build_rig(rig.ledger, rig.cloud, rig.transport, tmp_path, deployment="prod-2")
    twin = MachineKey("prod-2", 1000, "local")
    ready(other, twin)
    assert [e.key for e in rig.fleet.entries()] == [KEY]
    assert [e.key for e in other.fleet.entries()] == [twin]
    rig.fleet.destroy_and_wait(KEY, 10)
    assert [e.key for e in other.fleet.entries()] == [twin]
    other.fleet.close()


def test_waiting_for_what_was_never_asked_for_is_an_error(rig: Rig) -> None:
    with pytest.raises(MachineNotFound):
        rig.fleet.wait(KEY, 1)
    with pytest.raises(MachineNotFound):
        rig.fleet.session(KEY)


def test_a_wait_can_be_given_up(rig: Rig) -> None:
    stop = threading.Event()
    stop.set()
    request(rig)
    with pytest.raises(Cancelled):
        rig.fleet.wait(KEY, 60, stop)


def test_a_dead_owners_wave_is_finished_by_who_notices(rig: Rig) -> None:
    kept, missing = (book(rig, MachineKey("prod", n, "local")) for n in (1, 2))
    rig.ledger.intents.claim("prod", "fake", "wave1", "dead-owner")
    rig.ledger.machines.record(kept.uid, host_key="ssh-ed25519 boot")
    _give(rig.cloud, kept)
    assert rig.fleet.wait(kept.key, 10).uid == kept.uid, "what exists is kept"
    successor = rig.fleet.wait(missing.key, 10)
    assert successor.uid != missing.uid, "what does not is asked for anew"
    assert len(rig.cloud.alive) == 2
    assert rig.cloud.unlocked == ["wave1"]


def test_a_living_owners_wave_is_left_alone(rig: Rig) -> None:
    machine = book(rig, KEY)
    rig.ledger.owners.beat("alive")
    rig.ledger.intents.claim("prod", "fake", "wave1", "alive")
    with pytest.raises(NotReadyInTime):
        rig.fleet.wait(KEY, 0.5)
    now = rig.ledger.machines.get(machine.uid)
    assert now is not None
    assert now.state is State.CREATING


def _give(cloud: FakeCloud, machine: Machine) -> None:
    import datetime as dt

    cloud.give(
        MachineRequest(
            machine.uid,
            machine.key,
            machine.shape,
            cloud.offers(machine.shape)[0],
            {},
            dt.datetime.now(dt.UTC),
            "",
        )
    )


def test_a_machine_that_vanishes_as_soon_as_it_is_made_is_made_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tango_cloud.orchestration.readiness._UNSEEN_SECONDS", 0.0)
    machine = book(rig, KEY)
    rig.ledger.intents.claim("prod", "fake", "wave1", "somebody")
    rig.ledger.waves.applied("wave1")
    assert rig.fleet.wait(KEY, 10).uid != machine.uid


def test_a_key_replaced_by_another_process_meanwhile_is_no_mismatch(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read with the bootstrap key, and connected to when the other had just replaced it."""
    machine = request(rig)
    connect = rig.transport.connect

    def replaced_meanwhile(endpoint: Endpoint, timeout: float) -> FakeSession:
        monkeypatch.setattr(rig.transport, "connect", connect)
        rig.ledger.machines.record(machine.uid, host_key="ssh-ed25519 fresh")
        raise HostKeyMismatch("not the bootstrap key")

    monkeypatch.setattr(rig.transport, "connect", replaced_meanwhile)
    assert rig.fleet.wait(KEY, 10).uid == machine.uid


def test_what_is_only_tagged_like_a_machine_goes_by_its_own_name_alone(rig: Rig) -> None:
    machine = ready(rig)
    instance = rig.cloud.alive[machine.instance_id]
    rig.cloud.alive["i-alike"] = replace(
        instance, instance_id="i-alike", uid="i-alike", faults=("tango-uid",)
    )
    states = {entry.state for entry in rig.fleet.entries()}
    assert states == {"ready", "damaged"}
    rig.fleet.destroy_and_wait(KEY, 10)
    assert set(rig.cloud.alive) == {"i-alike"}
    rig.fleet.end_instance("fake", "i-alike", 10)
    assert not rig.cloud.alive


def test_a_copy_of_a_machine_is_listed_beside_it(rig: Rig) -> None:
    machine = ready(rig)
    instance = rig.cloud.alive[machine.instance_id]
    rig.cloud.alive["i-0copy"] = replace(instance, instance_id="i-0copy")
    entries = rig.fleet.entries()
    assert {(entry.state, entry.instance and entry.instance.instance_id) for entry in entries} == {
        ("ready", machine.instance_id),
        ("damaged", "i-0copy"),
    }


def test_a_machine_that_is_about_to_expire_gets_no_job(rig: Rig, tmp_path: Path) -> None:
    old = ready(rig)
    life = old.expires_at - old.created_at
    patient = build_rig(rig.ledger, rig.cloud, rig.transport, tmp_path, spare_seconds=life)
    assert patient.fleet.wait(KEY, 10).uid == old.uid, "of a short life half is enough"
    begun = time.time() - 0.6 * life
    rig.ledger.machines.record(old.uid, created_at=begun, expires_at=begun + life)
    assert rig.fleet.wait(KEY, 10).uid == old.uid
    new = patient.fleet.wait(KEY, 10)
    assert new.uid != old.uid
    assert new.expires_at - new.created_at == pytest.approx(life)
    assert set(rig.cloud.terminated) == {old.instance_id}
    patient.fleet.close()


def test_another_hosts_terraform_may_outlive_its_owner(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be looked up from here, and goes on by itself for a while."""
    machine = book(rig, KEY)
    with monkeypatch.context() as there:
        there.setattr("tango_cloud.core.ledger.waves._this_host", lambda: "there booted-once")
        rig.ledger.owners.beat("killed")
    rig.ledger.intents.claim("prod", "fake", "wave1", "killed")
    monkeypatch.setattr("tango_cloud.core.ledger.waves.SILENT_SECONDS", 0.0)
    assert not rig.ledger.owners.alive("killed")
    assert not rig.committer.finish("wave1")
    monkeypatch.setattr("tango_cloud.orchestration.waves._LONGEST_APPLY_SECONDS", 0.0)
    assert rig.committer.finish("wave1")
    assert state_of(rig, machine) is State.GONE
