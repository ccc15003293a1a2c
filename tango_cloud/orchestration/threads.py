"""Threads and the time they wait by, as a parameter: a simulation gives others, in virtual time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol


class Event(Protocol):
    def set(self) -> None: ...
    def clear(self) -> None: ...
    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class Semaphore(Protocol):
    def acquire(self) -> bool: ...
    def release(self) -> None: ...


class Thread(Protocol):
    def join(self) -> None: ...


class Threads(Protocol):
    def now(self) -> float:
        """Seconds, from any beginning; never set back."""
        ...

    def event(self) -> Event: ...
    def semaphore(self, count: int) -> Semaphore: ...
    def spawn(self, run: Callable[[], None], name: str, *, daemon: bool = False) -> Thread:
        """Start a thread. The process does not end before it does, unless it is a `daemon`."""
        ...


class _RealThreads:
    def now(self) -> float:
        return time.monotonic()

    def event(self) -> Event:
        return threading.Event()

    def semaphore(self, count: int) -> Semaphore:
        return threading.Semaphore(count)

    def spawn(self, run: Callable[[], None], name: str, *, daemon: bool = False) -> Thread:
        thread = threading.Thread(target=run, name=name, daemon=daemon)
        thread.start()
        return thread


REAL: Threads = _RealThreads()
