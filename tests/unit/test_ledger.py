"""The books: one machine for an identity, one wave for an intent, whoever asks at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from tango_cloud.core.errors import ConfigurationError
from tango_cloud.core.ledger import Ledger, database, new_uid
from tango_cloud.core.ledger.schema import metadata
from tango_cloud.core.lifecycle import Reason, State
from tango_cloud.core.model import Machine, MachineKey, Rate, Shape, WaveState

SHAPE = Shape("local.img", cores=2)
KEY = MachineKey("prod", 1000, "local")


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"


@pytest.fixture
def ledger(url: str, tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    ledger = Ledger(url, tmp_path, clock)
    yield ledger
    ledger.close()


def _request(ledger: Ledger, key: MachineKey = KEY) -> Machine:
    return ledger.machines.request(key, "local", SHAPE, 3600)[0]


def test_asking_twice_gives_one_machine(ledger: Ledger) -> None:
    first, new = ledger.machines.request(KEY, "local", SHAPE, 3600)
    second, again = ledger.machines.request(KEY, "local", SHAPE, 3600)
    assert (new, again) == (True, False)
    assert first == second
    assert (first.state, first.shape, first.expires_at) == (State.REQUESTED, SHAPE, 1_003_600.0)


def test_many_threads_asking_at_once_get_one_machine(ledger: Ledger) -> None:
    with ThreadPoolExecutor(16) as pool:
        uids = set(pool.map(lambda _: _request(ledger).uid, range(64)))
    assert len(uids) == 1


def test_a_gone_machine_makes_room_for_its_successor(ledger: Ledger) -> None:
    first = _request(ledger)
    ledger.machines.move(first.uid, State.GONE)
    assert ledger.machines.live(KEY) is None
    assert _request(ledger).uid != first.uid


def test_own_ids_stay_clear_of_tangos_and_of_each_other(ledger: Ledger) -> None:
    _request(ledger)
    with ThreadPoolExecutor(8) as pool:
        made = pool.map(
            lambda _: ledger.machines.request_next("prod", "local", "local", SHAPE, 60), range(16)
        )
        assert sorted(m.key.id for m in made) == list(range(100_000, 100_016))


def test_one_claim_takes_all_that_wait_and_nothing_else(ledger: Ledger) -> None:
    mine = [_request(ledger, MachineKey("prod", n, "local")) for n in range(3)]
    _request(ledger, MachineKey("prod-2", 0, "local"))
    claimed = ledger.machines.claim("prod", "local", "wave1", "owner")
    assert {m.uid for m in claimed} == {m.uid for m in mine}
    assert {m.state for m in claimed} == {State.CREATING}
    assert not ledger.machines.claim("prod", "local", "wave2", "owner")
    assert ledger.waves.get("wave2") is None
    wave = ledger.waves.get("wave1")
    assert wave is not None
    assert (wave.state, wave.owner) == (WaveState.APPLYING, "owner")


_CLAIMER = """
import sys, pathlib
from tango_cloud.core.ledger import Ledger, new_uid
url, folder = sys.argv[1:]
ledger = Ledger(url, pathlib.Path(folder))
sys.stdin.readline()
while claimed := ledger.machines.claim("prod", "local", new_uid(), "owner"):
    print(*(m.uid for m in claimed), flush=True)
"""


def test_processes_claiming_at_once_never_share_an_intent(
    ledger: Ledger, url: str, tmp_path: Path
) -> None:
    wanted = {_request(ledger, MachineKey("prod", n, "local")).uid for n in range(200)}
    command = [sys.executable, "-c", _CLAIMER, url, str(tmp_path)]
    claimers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for claimer in claimers:
        assert claimer.stdin is not None
        claimer.stdin.write("go\n")
        claimer.stdin.flush()
    outputs = [claimer.communicate(timeout=60)[0].split() for claimer in claimers]
    assert [claimer.returncode for claimer in claimers] == [0] * 4
    claimed = [uid for output in outputs for uid in output]
    assert len(claimed) == len(set(claimed)) == 200
    assert set(claimed) == wanted


def test_a_delayed_intent_waits_its_time(ledger: Ledger, clock: Clock) -> None:
    first = _request(ledger)
    ledger.machines.claim("prod", "local", "wave1", "owner")
    second = ledger.machines.supersede(
        first,
        reason=Reason.NO_CAPACITY,
        detail="none left",
        provider="elsewhere",
        offer=1,
        delay=5.0,
    )
    assert second is not None
    assert (second.key, second.provider, second.offer) == (KEY, "elsewhere", 1)
    assert second.attempt == 1
    assert second.uid != first.uid
    assert ledger.machines.waiting("prod") == []
    assert ledger.machines.next_due("prod", {}) == clock.now + 5.0
    assert not ledger.machines.claim("prod", "elsewhere", "wave2", "owner")
    clock.now += 5.0
    claimed = ledger.machines.claim("prod", "elsewhere", "wave2", "owner")
    assert [machine.uid for machine in claimed] == [second.uid]
    assert ledger.machines.providers("prod") == ["elsewhere"]


def test_what_is_being_destroyed_is_not_asked_for_anew(ledger: Ledger) -> None:
    machine = _request(ledger)
    ledger.machines.move(machine.uid, State.DESTROYING)
    anew = ledger.machines.supersede(
        machine, reason=Reason.LOST, detail="", provider="local", offer=0
    )
    assert anew is None


def test_a_move_that_is_not_allowed_changes_nothing(ledger: Ledger) -> None:
    machine = _request(ledger)
    assert ledger.machines.move(machine.uid, State.READY) is None
    assert ledger.machines.get(machine.uid) == machine


def test_the_story_of_a_machine_is_told_in_order(ledger: Ledger) -> None:
    machine = _request(ledger)
    ledger.machines.claim("prod", "local", "wave1", "owner")
    ledger.machines.move(machine.uid, State.FAILED, Reason.PROVISIONING, "no disk")
    for name in (machine.uid, "prod-1000-local", "1000"):
        events = ledger.machines.history("prod", name)
        assert [e.event for e in events] == ["requested", "creating", "failed"]
        assert events[-1].detail == "no disk"
    assert not ledger.machines.history("prod-2", machine.uid)


def test_a_wave_closes_once_its_last_machine_is_gone(ledger: Ledger) -> None:
    machines = [_request(ledger, MachineKey("prod", n, "local")) for n in range(2)]
    ledger.machines.claim("prod", "local", "wave1", "owner")
    ledger.waves.applied("wave1")
    ledger.machines.move(machines[0].uid, State.GONE)
    assert not ledger.waves.close("wave1")
    ledger.machines.move(machines[1].uid, State.GONE)
    assert ledger.waves.close("wave1")
    assert not ledger.waves.close("wave1"), "only one caller may tidy up"


def test_a_wave_being_applied_never_closes(ledger: Ledger) -> None:
    machine = _request(ledger)
    ledger.machines.claim("prod", "local", "wave1", "owner")
    ledger.machines.move(machine.uid, State.GONE)
    assert not ledger.waves.close("wave1")


def test_only_one_takes_over_from_a_dead_owner(ledger: Ledger) -> None:
    _request(ledger)
    ledger.machines.claim("prod", "local", "wave1", "dead")
    wave = ledger.waves.get("wave1")
    assert wave is not None
    assert [ledger.waves.take_over(wave, heir) for heir in ("one", "two")] == [True, False]


def test_an_owner_is_alive_while_its_process_is(ledger: Ledger) -> None:
    ledger.owners.register("me")
    assert ledger.owners.alive("me")
    assert not ledger.owners.alive("nobody")
    ledger.owners.leave("me")
    assert not ledger.owners.alive("me")


def test_an_owner_with_an_unfinished_wave_stays_on_the_books(ledger: Ledger, url: str) -> None:
    ledger.owners.register("me")
    _request(ledger)
    ledger.machines.claim("prod", "local", "wave1", "me")
    ledger.owners.leave("me")
    assert ledger.owners.alive("me")


RATE = Rate(burst=5, per_second=2.0)


def _ask(ledger: Ledger, count: int) -> None:
    for _ in range(count):
        ledger.machines.request_next("prod", "local", "local", SHAPE, 60)


def _claim(ledger: Ledger, deployment: str = "prod") -> int:
    wave = new_uid()
    return len(ledger.machines.claim(deployment, "local", wave, "owner", RATE))


def test_no_more_is_claimed_than_a_cloud_lets_us_ask_for(ledger: Ledger, clock: Clock) -> None:
    _ask(ledger, 12)
    assert _claim(ledger) == 5
    assert _claim(ledger) == 0
    assert ledger.machines.next_due("prod", {"local": RATE}) == pytest.approx(clock.now + 2.5)
    clock.now += 1.0
    assert _claim(ledger) == 0, "two at a time would cost an apply each"
    clock.now += 1.5
    assert _claim(ledger) == 5
    clock.now += 1.0
    assert _claim(ledger) == 2, "all that is left"
    clock.now += 3600
    _ask(ledger, 12)
    assert _claim(ledger) == 5, "a bucket holds no more"


def test_a_lone_machine_is_claimed_at_once(ledger: Ledger, clock: Clock) -> None:
    for _ in range(5):
        _ask(ledger, 1)
        assert ledger.machines.next_due("prod", {"local": RATE}) == clock.now
        assert _claim(ledger) == 1


def test_deployments_of_one_account_share_its_bucket(ledger: Ledger, clock: Clock) -> None:
    _ask(ledger, 5)
    ledger.machines.request(MachineKey("other", 1, "local"), "local", SHAPE, 60)
    assert _claim(ledger) == 5
    assert _claim(ledger, "other") == 0
    clock.now += 0.5
    assert _claim(ledger, "other") == 1


def test_every_host_that_works_for_a_deployment_is_known_by_its_key(
    ledger: Ledger, clock: Clock
) -> None:
    for key in ("key of here", "key of there", "key of here"):
        ledger.clients.enter("prod", key)
    ledger.clients.enter("other", "key of another")
    assert ledger.clients.keys("prod") == ["key of here", "key of there"]
    clock.now += 20 * 24 * 3600
    ledger.clients.enter("prod", "key of here")
    clock.now += 20 * 24 * 3600
    assert ledger.clients.keys("prod") == ["key of here"], "nobody works there any more"


def test_migrations_make_the_schema_that_the_code_uses(ledger: Ledger, url: str) -> None:
    found = inspect(create_engine(url))
    for name, table in metadata.tables.items():
        columns = {column["name"]: column["nullable"] for column in found.get_columns(name)}
        assert columns == {column.name: column.nullable for column in table.columns}
        indexes = {str(index["name"]) for index in found.get_indexes(name)}
        assert indexes == {str(index.name) for index in table.indexes}
    assert set(found.get_table_names()) == {*metadata.tables, "alembic_version"}


def test_head_is_the_newest_migration() -> None:
    folder = Path(database.__file__).with_name("migrations") / "versions"
    newest = max(path.name.partition("_")[0] for path in folder.glob("[0-9]*.py"))
    assert newest == database.HEAD


def test_a_ledger_of_a_newer_version_is_refused(ledger: Ledger, url: str, tmp_path: Path) -> None:
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(ConfigurationError, match="upgrade tango-cloud"):
        Ledger(url, tmp_path)


@pytest.mark.parametrize("bad", ["nonsense", "nosuchdb://x", "sqlite:////does/not/exist/x.db"])
def test_a_ledger_that_cannot_be_opened_is_a_clear_fault(bad: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ledger_url"):
        Ledger(bad, tmp_path)


def test_a_lease_is_held_once(ledger: Ledger) -> None:
    machine = _request(ledger)
    assert ledger.machines.lease(KEY) is None, "only a ready machine can be leased"
    for state in (State.CREATING, State.STARTING, State.READY):
        ledger.machines.move(machine.uid, state)
    leased = ledger.machines.lease(KEY)
    assert leased is not None
    assert (leased.uid, leased.state) == (machine.uid, State.LEASED)
    assert ledger.machines.lease(KEY) is None
    ledger.machines.unlease(KEY)
    assert ledger.machines.lease(KEY) is not None
