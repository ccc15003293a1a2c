"""Watching how much disk a job takes, at a cost that is bounded whatever it makes.

What counts is what names lead to: files that are open and have none any more do not.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence

RESERVE = 64 << 20
"""Bytes of the file system that a job never gets: what the agent itself needs to end it well."""
ENTRY_BYTES = 512
"""What an entry counts for besides its blocks: a million empty files are not free."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_DEPTH = 100
_MAX_WAITING = 8 << 20
"""Characters of paths that are kept. Who has made more than that has made too much."""
_TOO_MUCH = 1 << 62
_FIRST_LOOK = 0.25
_SLICE = 0.01
_REST = 15
"""After a slice of work, so many times as long without any."""


class DiskWatch:
    """Adds up what the directories open as `tops` hold, a slice at a time.

    `limit` in bytes, None for no limit but the reserve. Directories that the agent may not read do
    not count (a job of the agent's own user can hide files so); the reserve holds even then.
    """

    def __init__(self, tops: Sequence[int], limit: int | None) -> None:
        self._tops = tops
        self._limit = limit
        self._walk = measure(tops)
        self.next_look = time.monotonic() + _FIRST_LOOK
        self.reason = ""

    def exceeded(self) -> bool:
        """Whether too much is used, as far as is known now; `reason` then says what.

        Does a slice of the walk when one is due, and sets `next_look` to when the next one is.
        """
        started = time.monotonic()
        if started < self.next_look:
            return False
        if self.full():
            self.reason = "the machine's disk is full"
        elif self._limit is not None and self._step(started + _SLICE) > self._limit:
            self.reason = f"its disk limit of {self._limit} bytes was exceeded"
        took = time.monotonic() - started
        self.next_look = started + took + max(_FIRST_LOOK, took * _REST)
        return bool(self.reason)

    def full(self) -> bool:
        """Whether the file system has no more than what the agent needs."""
        space = os.statvfs(self._tops[0])
        return space.f_bavail * space.f_frsize < RESERVE

    def _step(self, until: float) -> int:
        """Go on with the walk until that time; the bytes found by this pass so far."""
        total = 0
        for total in self._walk:
            if time.monotonic() > until or (self._limit is not None and total > self._limit):
                return total
        self._walk = measure(self._tops)
        return total


def measure(tops: Sequence[int]) -> Iterator[int]:
    """Yields a growing total of bytes; the last one is the whole. Follows no links, and passes over
    what lies more than 100 directories deep, where each look would cost 100 opens.

    Only the paths of directories still to be read are kept, relative to their top, and of those no
    more than some megabytes: beyond that a total is yielded that exceeds any limit. Each step down
    is an open with O_NOFOLLOW, so that a directory replaced by a link meanwhile is passed over.
    """
    total = 0
    for top in tops:
        waiting, held = [""], 0
        while waiting:
            path = waiting.pop()
            held -= len(path)
            with contextlib.suppress(OSError):
                folder = _descend(top, path)
                try:
                    known = len(waiting)
                    for added in _add_entries(folder, path, waiting):
                        total += added
                        held += sum(map(len, waiting[known:]))
                        known = len(waiting)
                        if held > _MAX_WAITING:
                            yield _TOO_MUCH
                            return
                        yield total
                finally:
                    os.close(folder)
            yield total


def _add_entries(folder: int, path: str, waiting: list[str]) -> Iterator[int]:
    """Yields bytes to add, a few hundred entries' at a time; notes the directories to read next."""
    total = 0
    with os.scandir(folder) as scan:
        for number, entry in enumerate(scan):
            with contextlib.suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
            total += ENTRY_BYTES
            if entry.is_dir(follow_symlinks=False) and path.count("/") < _MAX_DEPTH:
                waiting.append(f"{path}/{entry.name}" if path else entry.name)
            if number % 200 == 0:
                yield total
                total = 0
    yield total


def _descend(top: int, path: str) -> int:
    folder = os.dup(top)
    for part in path.split("/") if path else ():
        try:
            inner = os.open(part, _DIRECTORY, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder
