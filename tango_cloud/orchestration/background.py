"""Reconciliation by itself, in the background of a process that lives long."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from tango_cloud.core.errors import TangoCloudError
from tango_cloud.orchestration.reconcile import Reconciler

log = logging.getLogger(__name__)


class Background:
    """A pass every `seconds`, the first after that long; 0: never.

    `turn` says whether it is this process' turn: several share the work.
    """

    def __init__(self, reconciler: Reconciler, seconds: float, turn: Callable[[], bool]) -> None:
        self._reconciler = reconciler
        self._seconds = seconds
        self._turn = turn
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._seconds and self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="reconcile", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Returns once a pass that was begun is over."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _loop(self) -> None:
        while not self._stopping.wait(self._seconds):
            try:
                if self._turn():
                    self._pass()
            except TangoCloudError as error:
                log.warning("no reconciliation now: %s", error)
            except Exception:
                log.exception("reconciliation failed; trying again in %.0f s", self._seconds)

    def _pass(self) -> None:
        for outcome in self._reconciler.run():
            found = outcome.finding
            if found.open:
                told = outcome.error or found.detail
                log.warning("%s: %s %s (%s)", found.kind, found.action, found.subject, told)
