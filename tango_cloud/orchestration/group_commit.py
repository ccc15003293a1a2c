"""Group commit, as databases do it: who asks while others are served shares the next turn."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tango_cloud.core.errors import TangoCloudError
from tango_cloud.orchestration.threads import REAL, Thread, Threads

log = logging.getLogger(__name__)

Work = Callable[[], None]

_GROWTH = 4.0


@dataclass(frozen=True, slots=True)
class Window:
    """How long a group is held open, in seconds: `quiet` without a newcomer, at most `limit`."""

    quiet: float
    limit: float

    def patience(self, at_work: int) -> float:
        """How long to wait for a newcomer while so many groups are being worked off.

        The first group is begun almost at once. The more are at work, the less a moment more
        matters to who has just come, and the more a group of few costs everybody.
        """
        return min(self.limit, self.quiet * _GROWTH**at_work)


class GroupCommit:
    """A thread that gathers what is asked for and works it off in groups, a bounded number at once.

    `pending` counts what waits. `claim` takes all of it, now, as pieces of work; it is called only
    when a worker is free, so what arrives while all are busy becomes one large group. `next_due`
    tells in how many seconds something asked for earlier becomes due, None if nothing will.
    """

    def __init__(
        self,
        name: str,
        *,
        pending: Callable[[], int],
        claim: Callable[[], Sequence[Work]],
        next_due: Callable[[], float | None],
        window: Window,
        workers: int,
        threads: Threads = REAL,
    ) -> None:
        self._name = name
        self._pending = pending
        self._claim = claim
        self._next_due = next_due
        self._window = window
        self._threads = threads
        self._slots = threads.semaphore(workers)
        self._kicked = threads.event()
        self._closing = threads.event()
        self._lock = threading.Lock()
        self._loop_thread: Thread | None = None
        self._at_work: dict[int, Thread] = {}
        self._number = 0

    def kick(self) -> None:
        """Something was asked for. Starts the thread on first use."""
        with self._lock:
            if self._closing.is_set():
                return
            if self._loop_thread is None:
                self._loop_thread = self._threads.spawn(self._loop, self._name, daemon=True)
        self._kicked.set()

    def close(self) -> None:
        """Take nothing more, and return when what was begun is finished."""
        with self._lock:
            self._closing.set()
        self._kicked.set()
        if self._loop_thread is not None:
            self._loop_thread.join()
        with self._lock:
            at_work = list(self._at_work.values())
        for thread in at_work:
            thread.join()

    def _loop(self) -> None:
        while not self._closing.is_set():
            try:
                self._kicked.wait(self._next_due())
                self._kicked.clear()
                self._turn()
            except Exception:
                # The ledger could not be asked (a full disk, say). What waits stays on the books.
                log.exception("%s: a turn failed; trying again", self._name)
                self._closing.wait(1.0)
                self._kicked.set()

    def _turn(self) -> None:
        if not self._pending():
            return
        self._gather()
        self._slots.acquire()
        try:
            works = [] if self._closing.is_set() else self._claim()
        except BaseException:
            self._slots.release()
            raise
        if not works:
            self._slots.release()
        for number, work in enumerate(works):
            if number:
                self._slots.acquire()
            self._begin(work)

    def _gather(self) -> None:
        deadline = self._threads.now() + self._window.limit
        patience = self._window.patience(len(self._at_work))
        seen = self._pending()
        while self._threads.now() < deadline and not self._closing.wait(patience):
            count = self._pending()
            if count <= seen:
                return
            seen = count

    def _begin(self, work: Work) -> None:
        self._number += 1
        number = self._number

        def run() -> None:
            try:
                work()
            except TangoCloudError as error:
                log.error("%s: %s", self._name, error)  # whoever waits for it asks again
            except Exception:
                log.exception("%s: a bug of ours", self._name)
            finally:
                with self._lock:
                    self._at_work.pop(number, None)
                self._slots.release()

        with self._lock:
            # With the lock held: it may be over before it is entered.
            self._at_work[number] = self._threads.spawn(run, f"{self._name}-{number}")
