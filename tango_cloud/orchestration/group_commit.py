"""Group commit, as databases do it: who asks while others are served shares the next turn."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from tango_cloud.core.errors import TangoCloudError

log = logging.getLogger(__name__)

Work = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Window:
    """How long a group is held open, in seconds: `quiet` without a newcomer, at most `limit`."""

    quiet: float
    limit: float


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
    ) -> None:
        self._name = name
        self._pending = pending
        self._claim = claim
        self._next_due = next_due
        self._window = window
        self._slots = threading.Semaphore(workers)
        self._kicked = threading.Event()
        self._closing = threading.Event()
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)

    def kick(self) -> None:
        """Something was asked for. Starts the thread on first use."""
        with self._start:
            if self._closing.is_set():
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
                self._thread.start()
        self._kicked.set()

    def close(self) -> None:
        """Take nothing more, and return when what was begun is finished."""
        with self._start:
            self._closing.set()
        self._kicked.set()
        if self._thread is not None:
            self._thread.join()
        self._pool.shutdown(wait=True)

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
            self._submit(work)

    def _gather(self) -> None:
        deadline = time.monotonic() + self._window.limit
        seen = self._pending()
        while time.monotonic() < deadline and not self._closing.wait(self._window.quiet):
            count = self._pending()
            if count <= seen:
                return
            seen = count

    def _submit(self, work: Work) -> None:
        def done(future: Future[None]) -> None:
            self._slots.release()
            error = future.exception()
            if error is not None:
                # Whoever waits for it asks again; a bug of ours is told in full.
                expected = isinstance(error, TangoCloudError)
                log.error("%s: %s", self._name, error, exc_info=None if expected else error)

        self._pool.submit(work).add_done_callback(done)
