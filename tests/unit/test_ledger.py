"""The books: one machine for an identity, one wave for an intent, whoever asks at once."""

from __future__ import annotations

import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from sqlalchemy import QueuePool, create_engine, delete, inspect, select, update

from tango_cloud.core.errors import ConfigurationError
from tango_cloud.core.ledger import Ledger, database
from tango_cloud.core.ledger.schema import metadata, owners
from tango_cloud.core.lifecycle import Reason, State
from tango_cloud.core.model import Machine, MachineKey, Shape

from .fakes import Clock

SHAPE = Shape("local.img", cores=2)
KEY = MachineKey("prod", 1000, "local")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def now(clock: Clock) -> Clock:
    return clock


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


def test_a_connection_is_waited_for_as_long_as_the_lock(ledger: Ledger) -> None:
    """Threads that wait for the lock may hold all connections; the others outlast them."""
    with ledger._database.read() as connection:
        lock_milliseconds = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    pool = ledger._database._engine.pool
    assert isinstance(pool, QueuePool)
    assert pool.timeout() * 1000 == lock_milliseconds


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
    ledger.intents.claim("prod", "local", "wave1", "owner")
    ledger.machines.move(machine.uid, State.FAILED, Reason.PROVISIONING, "no disk")
    for name in (machine.uid, "prod-1000-local", "1000"):
        events = ledger.machines.history("prod", name)
        assert [e.event for e in events] == ["requested", "creating", "failed"]
        assert events[-1].detail == "no disk"
    assert not ledger.machines.history("prod-2", machine.uid)


def test_a_wave_closes_once_its_last_machine_is_gone(ledger: Ledger) -> None:
    machines = [_request(ledger, MachineKey("prod", n, "local")) for n in range(2)]
    ledger.intents.claim("prod", "local", "wave1", "owner")
    ledger.waves.applied("wave1")
    ledger.machines.move(machines[0].uid, State.GONE)
    assert not ledger.waves.close("wave1")
    ledger.machines.move(machines[1].uid, State.GONE)
    assert ledger.waves.close("wave1")
    assert not ledger.waves.close("wave1"), "only one caller may tidy up"


def test_a_wave_being_applied_never_closes(ledger: Ledger) -> None:
    machine = _request(ledger)
    ledger.intents.claim("prod", "local", "wave1", "owner")
    ledger.machines.move(machine.uid, State.GONE)
    assert not ledger.waves.close("wave1")


def test_only_one_takes_over_from_a_dead_owner(ledger: Ledger) -> None:
    _request(ledger)
    ledger.intents.claim("prod", "local", "wave1", "dead")
    wave = ledger.waves.get("wave1")
    assert wave is not None
    assert [ledger.waves.take_over(wave, heir) for heir in ("one", "two")] == [True, False]


def test_a_clock_that_is_set_ends_nobody(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system says of a process is relative to the start of the host, and that moves."""
    ledger.owners.beat("me")
    own = tmp_path / str(os.getpid())
    own.mkdir()
    for name in ("stat", "status"):
        shutil.copy(f"/proc/self/{name}", own / name)
    hour_earlier = int(psutil.boot_time()) - 3600
    (tmp_path / "stat").write_text(f"btime {hour_earlier}\n")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert psutil.boot_time() == hour_earlier
    assert ledger.owners.alive("me")


@pytest.mark.parametrize("silent", [False, True])
def test_an_owner_on_another_host_is_alive_while_its_heart_beats(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    """A host that was started anew is another one, though its name and its pids are the same."""
    ledger.owners.beat("me")
    monkeypatch.setattr("tango_cloud.core.ledger.waves._this_host", lambda: "elsewhere")
    if silent:
        monkeypatch.setattr("tango_cloud.core.ledger.waves.SILENT_SECONDS", 0.0)
    assert ledger.owners.alive("me") is not silent


def test_an_owner_is_alive_while_its_process_is(ledger: Ledger) -> None:
    ledger.owners.beat("me")
    assert ledger.owners.alive("me")
    assert not ledger.owners.alive("nobody")
    ledger.owners.leave("me")
    assert not ledger.owners.alive("me")


def test_owners_of_this_host_that_were_killed_are_struck_off(ledger: Ledger, url: str) -> None:
    for owner in ("killed", "elsewhere", "me"):
        ledger.owners.beat(owner)
    with create_engine(url).begin() as connection:
        connection.execute(update(owners).where(owners.c.owner == "killed").values(started=1.0))
        connection.execute(update(owners).where(owners.c.owner == "elsewhere").values(host="there"))
    ledger.owners.forget_dead()
    with create_engine(url).connect() as connection:
        left = connection.execute(select(owners.c.owner)).scalars()
        assert set(left) == {"elsewhere", "me"}


def test_an_owner_with_an_unfinished_wave_stays_on_the_books(ledger: Ledger, url: str) -> None:
    ledger.owners.beat("me")
    _request(ledger)
    ledger.intents.claim("prod", "local", "wave1", "me")
    ledger.owners.leave("me")
    assert ledger.owners.alive("me")


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


@pytest.mark.parametrize(
    "bad",
    [
        "nonsense",
        "nosuchdb://x",
        "sqlite:////does/not/exist/x.db",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql://u:p@h:notaport/x",
        "postgresql://u:p@h/x",
    ],
)
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


def test_who_lives_is_alive_again_on_books_that_were_lost(ledger: Ledger, url: str) -> None:
    ledger.owners.beat("me")
    with create_engine(url).begin() as connection:
        connection.execute(delete(owners))
    assert not ledger.owners.alive("me")
    ledger.owners.beat("me")
    assert ledger.owners.alive("me")


def test_a_machine_that_has_come_up_meanwhile_is_not_given_up(ledger: Ledger) -> None:
    machine = _request(ledger)
    ledger.intents.claim("prod", "local", "wave1", "owner")
    ledger.machines.move(machine.uid, State.STARTING)
    given_up = ledger.machines.supersede(
        machine,
        reason=Reason.SUPERSEDED,
        detail="",
        provider="local",
        offer=0,
        among={State.CREATING},
    )
    assert given_up is None
