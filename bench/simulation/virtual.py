"""Threads in virtual time: real ones, of which one runs at a time, and nobody really waits.

A thread that waits hands on to the next that can go on; when none can, the clock jumps to the
earliest moment that somebody waits for. The order of all that happens is the same in every run.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable
from itertools import count


class Stuck(RuntimeError):
    """Every thread waits for another one."""


class _Waiter:
    """One wait of one thread; `told` when what it waited for came, not the end of its time."""

    __slots__ = ("baton", "told", "waiting")

    def __init__(self, baton: threading.Semaphore) -> None:
        self.baton = baton
        self.waiting = True
        self.told = False


class VirtualThreads:
    """Satisfies `Threads`. Whoever makes it is its first thread. `epoch` in seconds."""

    def __init__(self, epoch: float = 0.0) -> None:
        self._now = epoch
        self._order = count()
        self._due: list[tuple[float, int, _Waiter]] = []
        self._ready: deque[_Waiter] = deque()
        self._batons = threading.local()
        self._first = self._baton()
        self._stuck = False

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._wait(None, seconds)

    def event(self) -> VirtualEvent:
        return VirtualEvent(self)

    def semaphore(self, count: int) -> VirtualSemaphore:
        return VirtualSemaphore(self, count)

    def spawn(
        self,
        run: Callable[[], None],
        name: str,
        *,
        daemon: bool = False,  # noqa: ARG002  # nothing here outlives the process
    ) -> VirtualThread:
        ended = self.event()
        baton = threading.Semaphore(0)

        def turn() -> None:
            baton.acquire()
            self._batons.own = baton
            try:
                run()
            finally:
                ended.set()
                self._hand_on()

        threading.Thread(target=turn, name=name, daemon=True).start()
        self._ready.append(_Waiter(baton))
        return VirtualThread(ended)

    def _wait(self, queue: deque[_Waiter] | None, seconds: float | None) -> bool:
        """Whether it was told, and not merely the end of the time."""
        waiter = _Waiter(self._baton())
        if queue is not None:
            queue.append(waiter)
        if seconds is not None:
            heapq.heappush(self._due, (self._now + max(0.0, seconds), next(self._order), waiter))
        self._hand_on()
        waiter.baton.acquire()
        if self._stuck:
            raise Stuck
        return waiter.told

    def _tell(self, waiter: _Waiter) -> None:
        waiter.waiting, waiter.told = False, True
        self._ready.append(waiter)

    def _hand_on(self) -> None:
        if self._ready:
            self._ready.popleft().baton.release()
            return
        while self._due:
            moment, _, waiter = heapq.heappop(self._due)
            if waiter.waiting:
                waiter.waiting = False
                self._now = max(self._now, moment)
                waiter.baton.release()
                return
        self._stuck = True
        self._first.release()

    def _baton(self) -> threading.Semaphore:
        try:
            own: threading.Semaphore = self._batons.own
        except AttributeError:
            own = self._batons.own = threading.Semaphore(0)
        return own


class VirtualEvent:
    def __init__(self, threads: VirtualThreads) -> None:
        self._threads = threads
        self._set = False
        self._waiters: deque[_Waiter] = deque()

    def set(self) -> None:
        self._set = True
        for waiter in self._waiters:
            if waiter.waiting:
                self._threads._tell(waiter)
        self._waiters.clear()

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        return self._set or self._threads._wait(self._waiters, timeout)


class VirtualSemaphore:
    def __init__(self, threads: VirtualThreads, count: int) -> None:
        self._threads = threads
        self._count = count
        self._waiters: deque[_Waiter] = deque()

    def acquire(self) -> bool:
        if self._count:
            self._count -= 1
            return True
        return self._threads._wait(self._waiters, None)

    def release(self) -> None:
        if self._waiters:
            self._threads._tell(self._waiters.popleft())
        else:
            self._count += 1


class VirtualThread:
    def __init__(self, ended: VirtualEvent) -> None:
        self._ended = ended

    def join(self) -> None:
        self._ended.wait()
