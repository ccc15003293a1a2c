"""Emptying behind a job: who waits for it, and what a machine is worth that stays full."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from tango_cloud.machine import facts, folders
from tango_cloud.machine.cleaning import Cleaning
from tango_cloud.machine.failures import DAMAGED, Failure
from tango_cloud.machine.folders import Folders
from tango_cloud.machine.worker import FilesWorker


class Worker(FilesWorker):
    """Does nothing until it is waited for; fails then if it was told to."""

    def __init__(self, machine: facts.Facts, places: Folders, failure: Failure | None) -> None:
        super().__init__(machine, places, lambda _: b"")
        self.failure = failure
        self.done = 0

    def begin(self, what: str) -> None:
        assert what == "empty"

    def finish(self, on_wait: Callable[[], None]) -> None:
        on_wait()
        self.done += 1
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def machine(tmp_path: Path) -> facts.Facts:
    return facts.interpret({"work_dir": str(tmp_path / "work")})


@pytest.fixture
def places(machine: facts.Facts) -> Folders:
    places = Folders(machine)
    places.prepare()
    return places


def begin(cleaning: Cleaning, places: Folders) -> None:
    with contextlib.ExitStack() as held:
        held.enter_context(places.locked(never))
        cleaning.begin(held.pop_all())


def never() -> None:
    raise AssertionError("waited")


def is_locked(places: Folders) -> bool:
    with Path(places.agent, "lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_the_machine_stays_locked_until_it_is_empty(machine: facts.Facts, places: Folders) -> None:
    worker = Worker(machine, places, None)
    cleaning = Cleaning(places, worker)
    begin(cleaning, places)
    assert is_locked(places)
    cleaning.settle(lambda: None)
    assert not is_locked(places)
    cleaning.settle(never)
    assert worker.done == 1


def test_a_machine_that_stays_full_is_never_used_again(
    machine: facts.Facts, places: Folders
) -> None:
    cleaning = Cleaning(places, Worker(machine, places, Failure(DAMAGED, "it stays")))
    begin(cleaning, places)
    cleaning.wait(lambda: None)  # who only waits is not told
    assert not is_locked(places)
    for _ in range(2):
        with pytest.raises(Failure, match="it stays"):
            cleaning.settle(never)


def test_a_wait_that_is_broken_off_can_be_taken_up(machine: facts.Facts, places: Folders) -> None:
    worker = Worker(machine, places, None)
    cleaning = Cleaning(places, worker)
    begin(cleaning, places)

    def hang_up() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        cleaning.wait(hang_up)
    assert is_locked(places)
    cleaning.wait(lambda: None)
    assert worker.done == 1
    assert not is_locked(places)


def test_a_job_directory_that_cannot_be_set_right(machine: facts.Facts, places: Folders) -> None:
    class Broken(Worker):
        def begin(self, what: str) -> None:
            raise Failure(DAMAGED, "cannot open")

    cleaning = Cleaning(places, Broken(machine, places, None))
    begin(cleaning, places)
    assert not is_locked(places)
    with pytest.raises(Failure, match="cannot open"):
        cleaning.settle(never)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_LOCK_SECONDS", -1.0)
    monkeypatch.setattr(folders, "_LOCK_PAUSE", 0.0)


@pytest.mark.usefixtures("impatient")
def test_another_agent_waits_for_the_emptying_but_not_for_a_job(places: Folders) -> None:
    looks = 0
    with places.locked(never), pytest.raises(Failure, match="another job"), places.locked(never):
        pass
    with contextlib.ExitStack() as held:
        held.enter_context(places.locked(never))
        held.enter_context(places.cleaning())

        def on_wait() -> None:
            nonlocal looks
            looks += 1
            if looks == 3:
                held.close()

        with places.locked(on_wait):
            assert looks == 3
