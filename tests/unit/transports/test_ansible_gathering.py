"""Who shares a run of a playbook, and who hears of what."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tango_cloud.core.errors import MachineUnreachable
from tango_cloud.transports.ansible.gathering import Gathering
from tango_cloud.transports.ansible.playbooks import Result

LONG = 10.0


@dataclass
class Run:
    """A run that a test takes through its stages; it ends when `end` is called."""

    playbook: str
    hosts: Mapping[str, Mapping[str, Any]]
    begin: Callable[[], None]
    hear: Callable[[Result], None]
    stopped: Callable[[], bool]
    ended: Future[None] = field(default_factory=Future)

    def tell(self, host: str, text: str) -> None:
        self.hear(Result(host, "command", "ok", {"text": text}))

    def end(self) -> None:
        self.ended.set_result(None)


class Playing:
    def __init__(self) -> None:
        self.runs: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self.gathering = Gathering(self._run)
        self.pool = ThreadPoolExecutor()

    def _run(self, *parts: Any, **_: Any) -> None:
        run = Run(*parts)
        self.runs.put(run)
        run.ended.result(LONG)

    def next_run(self) -> Run:
        return self.runs.get(timeout=LONG)

    def call(
        self, name: str, playbook: str = "ask", stopped: Callable[[], bool] = lambda: False
    ) -> Future[list[str]]:
        results = self.gathering.play(playbook, {"name": name}, stopped)
        return self.pool.submit(lambda: [str(result.told["text"]) for result in results])


@pytest.fixture
def playing() -> Iterator[Playing]:
    made = Playing()
    yield made
    made.pool.shutdown()


def test_a_lone_call_starts_at_once_and_who_comes_meanwhile_shares_the_next(
    playing: Playing,
) -> None:
    first = playing.call("a")
    run = playing.next_run()
    others = [playing.call(name) for name in "bcd"]
    assert playing.runs.empty()
    run.begin()
    shared = playing.next_run()
    assert sorted(str(one["name"]) for one in shared.hosts.values()) == ["b", "c", "d"]
    for host, variables in shared.hosts.items():
        shared.tell(host, f"of {variables['name']}")
    shared.end()
    assert [other.result(LONG) for other in others] == [["of b"], ["of c"], ["of d"]]
    assert not first.done(), "its run goes on"
    run.end()
    assert first.result(LONG) == []


def test_playbooks_do_not_wait_for_each_other(playing: Playing) -> None:
    calls = [playing.call("a", "ask"), playing.call("b", "run")]
    runs = [playing.next_run(), playing.next_run()]
    assert sorted(run.playbook for run in runs) == ["ask", "run"]
    for run in runs:
        run.end()
    assert [call.result(LONG) for call in calls] == [[], []]


def test_a_run_is_ended_when_none_of_its_callers_is_left(playing: Playing) -> None:
    gone: set[str] = set()
    lone = playing.call("a")
    first = playing.next_run()
    calls = {name: playing.call(name, stopped=lambda name=name: name in gone) for name in "bc"}  # type: ignore[misc]
    first.begin()
    shared = playing.next_run()
    gone.add("b")
    assert not shared.stopped()
    assert calls["b"].result(LONG) == [], "it does not wait for the other"
    gone.add("c")
    assert shared.stopped()
    assert calls["c"].result(LONG) == []
    for run in (first, shared):
        run.end()
    assert lone.result(LONG) == []


def test_a_run_that_fails_to_start_fails_its_callers_and_no_others(playing: Playing) -> None:
    bad = playing.call("a")
    run = playing.next_run()
    good = playing.call("b")
    run.ended.set_exception(MachineUnreachable("ansible is broken"))
    with pytest.raises(MachineUnreachable, match="broken"):
        bad.result(LONG)
    playing.next_run().end()
    assert good.result(LONG) == []


def test_who_is_stopped_while_waiting_has_nothing_begun(playing: Playing) -> None:
    stop = threading.Event()
    first = playing.call("a")
    run = playing.next_run()
    stopped = playing.call("b", stopped=stop.is_set)
    third = playing.call("c")
    stop.set()
    run.begin()
    shared = playing.next_run()
    assert {host["name"] for host in shared.hosts.values()} == {"c"}
    assert stopped.result(LONG) == []
    for one in (run, shared):
        one.end()
    assert first.result(LONG) == third.result(LONG) == []
