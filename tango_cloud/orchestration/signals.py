"""Waking who waits for a machine, within this process. Other processes poll the ledger."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from weakref import WeakValueDictionary


class Signal:
    """Of one machine."""

    def __init__(self) -> None:
        self._given = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Return when it is given, at the latest after `seconds`; whether it was.

        One that was given since the last `wait` counts.
        """
        given = self._given.wait(max(0.0, seconds))
        self._given.clear()
        return given

    def give(self) -> None:
        self._given.set()


class Signals:
    """A signal for each machine that somebody waits for, by uid, and for as long as they do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._signals: WeakValueDictionary[str, Signal] = WeakValueDictionary()

    def of(self, uid: str) -> Signal:
        """To be held on to by who waits: nobody else does."""
        with self._lock:
            return self._signals.setdefault(uid, Signal())

    def notify(self, uids: Iterable[str]) -> None:
        """Wake who waits for these."""
        with self._lock:
            signals = [signal for uid in uids if (signal := self._signals.get(uid)) is not None]
        for signal in signals:
            signal.give()
