"""A job's output: its first bytes, its last bytes, and how many there were in all.

Two files hold it, whatever a job prints: the spool takes the first `limit` bytes, the ring the last
half of `limit`, written round and round. Memory stays constant, and another agent can read the
spool while the job still prints.
"""

from __future__ import annotations

import contextlib
import os

ELISION = b"\n...[excess bytes elided]...\n"
"""Between the two halves, exactly as Tango's autodriver puts it."""

_CHUNK = 1 << 18


class Output:
    """Collects what a job prints. `limit` is in bytes, None for no limit.

    Raises OSError from any method when the machine's disk is full.
    """

    def __init__(self, spool: str, ring: str, limit: int | None) -> None:
        self.total = 0
        self._limit = limit
        self._half = 0 if limit is None else limit - limit // 2
        self._spool = _create(spool)
        self._ring = _create(ring)

    @property
    def kept(self) -> int:
        """How many of the first bytes stand in the spool."""
        return self.total if self._limit is None else min(self.total, self._limit)

    def write(self, data: bytes) -> None:
        kept = self.kept
        room = len(data) if self._limit is None else self._limit - kept
        if room > 0:
            _write_at(self._spool, data[:room], kept)
        if self._half:
            self._write_ring(data)
        self.total += len(data)

    def read(self, offset: int, count: int) -> bytes:
        """At most `count` of the first bytes, from `offset` on."""
        return os.pread(self._spool, count, offset)

    def finish(self) -> None:
        """Turn the spool into the final output: when more came than fits, its two halves."""
        if self._limit is not None and self.total > self._limit:
            first = self._limit // 2
            os.ftruncate(self._spool, first)
            end = _write_at(self._spool, ELISION, first)
            start = self.total % self._half if self._half else 0
            end = self._copy_ring(start, self._half, end)
            self._copy_ring(0, start, end)

    def close(self) -> None:
        os.close(self._spool)
        os.close(self._ring)

    def _write_ring(self, data: bytes) -> None:
        skipped = max(0, len(data) - self._half)
        position = (self.total + skipped) % self._half
        rest = data[skipped:]
        first = rest[: self._half - position]
        _write_at(self._ring, first, position)
        _write_at(self._ring, rest[len(first) :], 0)

    def _copy_ring(self, start: int, stop: int, end: int) -> int:
        while start < stop:
            part = os.pread(self._ring, min(_CHUNK, stop - start), start)
            if not part:
                raise OSError("the end of the output is lost")
            start += len(part)
            end = _write_at(self._spool, part, end)
        return end


def _create(path: str) -> int:
    """A new, empty file: readers of an old one of that name keep theirs."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def _write_at(file: int, data: bytes, offset: int) -> int:
    """Write all of `data` at `offset`; return where it ends."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        offset += written
        rest = rest[written:]
    return offset
