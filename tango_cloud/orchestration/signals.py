"""Waking who waits for a machine, within this process. Other processes poll the ledger."""

from __future__ import annotations

import threading
from collections.abc import Iterable


class Signals:
    """One event for each machine somebody waits for, by uid."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, threading.Event] = {}

    def wait(self, uid: str, seconds: float) -> bool:
        """Return when the machine is signalled, at the latest after `seconds`; whether it was.

        A signal given since the last `wait` for the same machine counts, once there was one.
        """
        with self._lock:
            event = self._events.setdefault(uid, threading.Event())
        signalled = event.wait(max(0.0, seconds))
        event.clear()
        return signalled

    def notify(self, uids: Iterable[str]) -> None:
        """Wake who waits for these. Nobody has ever waited: nothing is kept."""
        with self._lock:
            events = [self._events[uid] for uid in uids if uid in self._events]
        for event in events:
            event.set()

    def forget(self, uid: str) -> None:
        """The machine is gone: wake who waits for it, and keep nothing."""
        with self._lock:
            event = self._events.pop(uid, None)
        if event is not None:
            event.set()
