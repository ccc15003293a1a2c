"""The memory of this process and of all that it starts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

_LOOK_SECONDS = 0.2


@dataclass
class Peak:
    """The most that was seen at one moment, in bytes of proportional sets: what is shared counts
    once."""

    bytes: int = 0


@contextmanager
def watched(but: Collection[int] = ()) -> Iterator[Peak]:
    """The peak during the block, without the processes `but` and all that those have started."""
    peak, stop = Peak(), threading.Event()

    def watch() -> None:
        while not stop.wait(_LOOK_SECONDS):
            peak.bytes = max(peak.bytes, sum(map(_proportional, _family(but))))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _family(but: Collection[int]) -> Iterator[psutil.Process]:
    waiting = [psutil.Process()]
    while waiting:
        process = waiting.pop()
        yield process
        with contextlib.suppress(psutil.Error):
            waiting += [child for child in process.children() if child.pid not in but]


def _proportional(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
