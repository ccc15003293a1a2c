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

        A signal given since the last `wait` for the same machine counts: none is missed.
        """
        event = self._event(uid)
        signalled = event.wait(max(0.0, seconds))
        event.clear()
        return signalled

    def notify(self, uids: Iterable[str]) -> None:
        for uid in uids:
            self._event(uid).set()

    def forget(self, uid: str) -> None:
        """The machine is gone: drop what was kept for it."""
        with self._lock:
            event = self._events.pop(uid, None)
        if event is not None:
            event.set()

    def _event(self, uid: str) -> threading.Event:
        with self._lock:
            return self._events.setdefault(uid, threading.Event())
