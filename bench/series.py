"""Timing things side by side."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

Contender = Callable[[], object]


class Series:
    """Durations in seconds, under names; a name may occur as often as it likes."""

    def __init__(self) -> None:
        self._samples: defaultdict[str, list[float]] = defaultdict(list)

    def timing(self, name: str) -> AbstractContextManager[None]:
        """Add how long the block takes; nothing when it raises."""

        @contextmanager
        def timed() -> Iterator[None]:
            began = time.perf_counter()
            yield
            self._samples[name].append(time.perf_counter() - began)

        return timed()

    def add(self, name: str, seconds: float) -> None:
        self._samples[name].append(seconds)

    def count(self, name: str) -> int:
        return len(self._samples[name])

    def median(self, name: str) -> float:
        return statistics.median(self._samples[name])

    def quartiles(self, name: str) -> tuple[float, float]:
        """The first and the third; of few samples the least and the greatest."""
        samples = self._samples[name]
        if len(samples) < 4:
            return min(samples), max(samples)
        first, _, third = statistics.quantiles(samples, n=4)
        return first, third


def interleave(
    contenders: Mapping[str, Contender], rounds: int, series: Series, pause: float = 0.0
) -> None:
    """Time each contender once a round, in an order that rotates: none always follows another.

    Before each one nothing happens for `pause` seconds.
    """
    names = list(contenders)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            time.sleep(pause)
            with series.timing(name):
                contenders[name]()
