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


@dataclass(frozen=True, slots=True)
class Window:
    """How long a group is held open, in seconds: `quiet` without a newcomer, `growth` times as long
    for each group that is being worked off, and not longer than `limit` in all.
    """

    quiet: float
    limit: float
    growth: float = 4.0

    def patience(self, at_work: int, waited: float) -> float:
        """How long to wait for a newcomer while so many groups are at work, `waited` after the
        first of this one came.

        Who comes alone is served almost at once. The more are at work, the less a moment more
        matters to who has just come, and the more a group of few costs everybody.
        """
        grown = self.quiet * self.growth**at_work
        return max(self.quiet, min(grown, self.limit - waited))


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
        self._opened: float | None = None

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
        if self._opened is None:
            self._opened = self._threads.now()
        self._gather(self._opened)
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
        # What was not claimed (the cloud has a pace) has waited long enough: it is not held again.
        if not self._pending():
            self._opened = None

    def _gather(self, opened: float) -> None:
        seen, waited = self._pending(), self._threads.now() - opened
        while not self._closing.wait(self._window.patience(len(self._at_work), waited)):
            count, waited = self._pending(), self._threads.now() - opened
            if count <= seen or waited >= self._window.limit:
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

        try:
            with self._lock:
                # With the lock held: it may be over before it is entered.
                self._at_work[number] = self._threads.spawn(run, f"{self._name}-{number}")
        except RuntimeError as error:
            # No more threads can be had. It is claimed, so that nobody else would do it.
            log.warning("%s: %s; one at a time then", self._name, error)
            run()
