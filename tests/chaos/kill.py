"""Kills a life at every step of it, and holds what one `reconcile` leaves against the invariants.

`python -m tests.chaos.kill [--on CLOUD ...] [--only TEXT] [--every N] [--report FILE]`
"""

from __future__ import annotations

import argparse
import itertools
import queue
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest

from ..google_plugin import Unavailable
from .clouds import CLOUDS, Cloud
from .report import Outcome, render
from .scene import Death, Scene, scene

AT_ONCE = 2
EVERY = {"local": 1, "aws": 4, "gcp": 2}
"""A life on an emulated cloud takes ten times as long as one on `local`."""


class Killing:
    """All the deaths on one cloud, `AT_ONCE` of them at a time."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self._cloud = cloud
        self._folder = folder
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def run(self, only: str, every: int) -> Sequence[Outcome]:
        with ExitStack() as stack, ThreadPoolExecutor(AT_ONCE) as pool:
            scenes = [stack.enter_context(self._fresh()) for _ in range(AT_ONCE)]
            first, *_ = pool.map(Scene.record, scenes)
            later = scenes[0].record()
            chosen = choose(first, later, elsewhere=self._cloud.name != "local")
            chosen = [death for death in chosen if only in death][::every]
            _say(f"{self._cloud.name}: {len(chosen)} deaths of {len({*first, *later})}")
            waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
            for point in chosen:
                waiting.put(point)
            outcomes: list[Outcome] = []
            try:
                for done in pool.map(lambda one: self._work(one, waiting, set(later)), scenes):
                    outcomes += done
            except KeyboardInterrupt:
                while not waiting.empty():
                    waiting.get()
                raise
        return sorted(outcomes, key=lambda outcome: chosen.index(outcome.death.point))

    def _work(
        self, own: Scene, waiting: queue.SimpleQueue[str], later: set[str]
    ) -> Sequence[Outcome]:
        """Until no death is waiting. Those of a first life are died in a scene of their own."""
        outcomes: list[Outcome] = []
        while True:
            try:
                point = waiting.get_nowait()
            except queue.Empty:
                return outcomes
            with nullcontext(own) if point in later else self._fresh() as where:
                outcomes.append(self._tried(where, point))
            _say(str(outcomes[-1]))

    def _tried(self, where: Scene, point: str) -> Outcome:
        try:
            return Outcome(self._cloud.name, where.kill(point))
        except AssertionError as error:
            wrong = f"{error}\n{where.told()}"
            where.start_afresh()
            return Outcome(self._cloud.name, Death(point, died=True, mended=()), wrong)

    @contextmanager
    def _fresh(self) -> Iterator[Scene]:
        with self._lock:
            # As a name of something: points must not tell one scene from another.
            prefix = f"chaos-{next(self._numbers):03}"
        folder = self._folder / prefix
        folder.mkdir()
        with scene(self._cloud, folder, prefix) as made:
            yield made


def choose(first: Sequence[str], later: Sequence[str], *, elsewhere: bool) -> list[str]:
    """The deaths of a later and of a first life that are worth dying.

    `elsewhere` than on `local`: of a first life only where processes and calls are, the rest is the
    same there; and of calls that only look, the first two.
    """
    deaths = dict.fromkeys([*later, *(point for point in first if point not in set(later))])
    if not elsewhere:
        return list(deaths)
    known = set(later)
    special = [d for d in deaths if d in known or d.split()[1] in {"call", "process"}]
    return [d for d in special if not _only_looks_again(d)]


def _only_looks_again(death: str) -> bool:
    """`after call DescribeInstances #7`"""
    _, kind, what, *_ = death.split()
    looks = kind == "call" and what.startswith(("Describe", "GET"))
    return looks and int(death.rpartition("#")[2]) > 2


def main(names: Sequence[str], only: str, every: int | None, report: Path | None) -> int:
    outcomes: list[Outcome] = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="tango-chaos-") as place:
            folder = Path(place)
            try:
                with CLOUDS[name](folder / "cloud") as cloud:
                    outcomes += Killing(cloud, folder).run(only, every or EVERY[name])
            except (pytest.skip.Exception, Unavailable) as reason:
                _say(f"{name}: not tried: {reason}")
    text = render(outcomes)
    _say(text.partition("\n\n")[0])
    if report is not None:
        report.write_text(text)
    return int(not outcomes or any(outcome.wrong for outcome in outcomes))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on", nargs="+", choices=CLOUDS, default=list(CLOUDS), metavar="CLOUD")
    parser.add_argument("--only", default="", metavar="TEXT", help="deaths in whose name it is")
    parser.add_argument("--every", type=int, metavar="N")
    parser.add_argument("--report", type=Path, metavar="FILE")
    given = parser.parse_args()
    sys.exit(main(given.on, given.only, given.every, given.report))
