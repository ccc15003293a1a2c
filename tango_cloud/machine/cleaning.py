"""Emptying the job's directories behind a job, while its result is already on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from tango_cloud.machine.failures import Failure
from tango_cloud.machine.folders import Folders
from tango_cloud.machine.worker import EMPTY, FilesWorker


class Cleaning:
    """What is left to do of the last job. The machine stays locked until it is done.

    The caller need not wait for it, but nothing that touches the directories may come before
    `settle`, which also keeps a machine that could not be emptied from ever being used again.
    """

    def __init__(self, folders: Folders, worker: FilesWorker) -> None:
        self._folders = folders
        self._worker = worker
        self._held = contextlib.ExitStack()
        self._under_way = False
        self._fault: Failure | None = None

    def begin(self, held: contextlib.ExitStack) -> None:
        """Have the worker begin, and return. `held` is the machine's lock: it is given back when
        the worker is done."""
        self._held = held
        with contextlib.suppress(OSError):  # the disk is full; it only saves others a refusal
            held.enter_context(self._folders.cleaning())
        try:
            self._folders.prepare()  # a job of the agent's own user may have removed its directory
            self._worker.begin(EMPTY)
        except Failure as failure:
            self._fault = failure
            held.close()
        else:
            self._under_way = True

    def wait(self, on_wait: Callable[[], None]) -> None:
        """Return once it is done, well or not; `on_wait` is called once a second meanwhile."""
        if not self._under_way:
            return
        try:
            self._worker.finish(on_wait)
        except Failure as failure:
            self._fault = failure
        self._under_way = False
        self._held.close()

    def settle(self, on_wait: Callable[[], None]) -> None:
        """The same, for who is going to use the machine. Raises Failure (damaged) when something of
        a job stays, now and ever after."""
        self.wait(on_wait)
        if self._fault is not None:
            raise self._fault
