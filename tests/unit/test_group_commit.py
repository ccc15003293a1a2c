"""Gathering: who comes alone is served at once, a burst together, a trickle in a few groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from bench.simulation.virtual import Stuck, VirtualThreads
from tango_cloud.orchestration.group_commit import GroupCommit, Window, Work
from tango_cloud.orchestration.threads import Thread

WINDOW = Window(quiet=0.02, limit=1.0)
WORK_SECONDS = 5.0


@dataclass
class Queue:
    """Requests that are claimed in groups, each worked on for some virtual seconds."""

    threads: VirtualThreads = field(default_factory=VirtualThreads)
    waiting: list[int] = field(default_factory=list)
    groups: list[tuple[float, list[int]]] = field(default_factory=list)
    served: list[int] = field(default_factory=list)
    on_claim: Callable[[], None] = lambda: None
    workers: int = 2

    def __post_init__(self) -> None:
        self.commit = GroupCommit(
            "group",
            pending=lambda: len(self.waiting),
            claim=self._claim,
            next_due=lambda: None,
            window=WINDOW,
            workers=self.workers,
            threads=self.threads,
        )

    def ask(self, number: int) -> None:
        self.waiting.append(number)
        self.commit.kick()

    def _claim(self) -> Sequence[Work]:
        self.on_claim()
        group, self.waiting = self.waiting, []
        self.groups.append((self.threads.now(), group))

        def work() -> None:
            self.threads.sleep(WORK_SECONDS)
            self.served += group

        return [work] if group else []


@pytest.fixture
def queue() -> Iterator[Queue]:
    queue = Queue()
    yield queue
    queue.commit.close()


def test_patience_grows_with_what_is_at_work_up_to_the_limit() -> None:
    assert [WINDOW.patience(at_work, 0.0) for at_work in range(4)] == pytest.approx(
        [0.02, 0.08, 0.32, 1.0]
    )
    assert WINDOW.patience(3, waited=0.7) == pytest.approx(0.3)
    assert WINDOW.patience(3, waited=60.0) == WINDOW.quiet


def test_who_comes_alone_is_served_at_once(queue: Queue) -> None:
    queue.ask(1)
    queue.threads.sleep(1.0)
    ((at, group),) = queue.groups
    assert at == pytest.approx(WINDOW.quiet)
    assert group == [1]


def test_a_burst_is_one_group(queue: Queue) -> None:
    for number in range(50):
        queue.ask(number)
        queue.threads.sleep(0.01)
    queue.threads.sleep(1.0)
    assert [len(group) for _, group in queue.groups] == [50]


def test_a_group_is_not_held_open_for_ever(queue: Queue) -> None:
    for number in range(300):
        queue.ask(number)
        queue.threads.sleep(0.01)
    assert queue.groups[0][0] == pytest.approx(WINDOW.limit, abs=WINDOW.quiet)


def test_a_trickle_takes_few_groups() -> None:
    queue = Queue(workers=4)
    for number in range(200):
        queue.ask(number)
        queue.threads.sleep(0.05)
    queue.threads.sleep(2 * WORK_SECONDS)
    queue.commit.close()
    assert sorted(queue.served) == list(range(200))
    assert len(queue.groups) <= 9, "one each would be 200"
    assert queue.groups[0][1] == [0], "the first does not wait for the others"


def test_what_comes_while_all_are_busy_is_one_group(queue: Queue) -> None:
    for number in range(20):
        queue.ask(number)
        queue.threads.sleep(0.2)
    queue.threads.sleep(3 * WORK_SECONDS)
    assert len(queue.groups) == 3
    assert sorted(queue.served) == list(range(20))


def test_closing_finishes_what_was_begun_and_takes_nothing_more(queue: Queue) -> None:
    queue.ask(1)
    queue.threads.sleep(0.5)
    queue.ask(2)
    queue.commit.close()
    assert queue.served == [1]
    queue.ask(3)
    queue.threads.sleep(60.0)
    assert queue.waiting == [2, 3]


def test_a_claim_that_fails_is_tried_again(queue: Queue) -> None:
    failures = [OSError("disk full"), OSError("disk full")]

    def fail() -> None:
        if failures:
            raise failures.pop()

    queue.on_claim = fail
    queue.ask(1)
    queue.threads.sleep(10.0)
    assert queue.served == [1]


def test_work_that_fails_frees_its_place(queue: Queue) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    for _ in range(5):
        queue.commit._slots.acquire()
        queue.commit._begin(fail)
        queue.threads.sleep(0.1)
    queue.ask(1)
    queue.threads.sleep(10.0)
    assert queue.served == [1]


def test_what_is_claimed_is_done_when_no_thread_can_be_had_for_it(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn = queue.threads.spawn

    def spawn_daemons(run: Callable[[], None], name: str, *, daemon: bool = False) -> Thread:
        if not daemon:
            raise RuntimeError("can't start new thread")
        return spawn(run, name, daemon=daemon)

    monkeypatch.setattr(queue.threads, "spawn", spawn_daemons)
    for number in range(3):
        queue.ask(number)
        queue.threads.sleep(2 * WORK_SECONDS)
    assert queue.served == [0, 1, 2]


def test_a_deadlock_in_virtual_time_is_told() -> None:
    threads = VirtualThreads()
    with pytest.raises(Stuck):
        threads.event().wait()
