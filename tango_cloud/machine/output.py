"""A job's output: its first bytes, its last bytes, and how many there were in all.

Two files hold it, whatever a job prints. The spool takes the first `limit` bytes; what comes after
them goes round and round in the ring, which holds half of `limit`. Memory stays constant, and
another agent can read the spool while the job still prints.
"""

from __future__ import annotations

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
        self._ring_path = ring
        self._ring = -1

    @property
    def kept(self) -> int:
        """How many of the first bytes stand in the spool."""
        return self.total if self._limit is None else min(self.total, self._limit)

    @property
    def elided(self) -> bool:
        """Whether more came than is kept, so that `finish` has something to do."""
        return self._limit is not None and self.total > self._limit

    def write(self, data: bytes) -> None:
        room = len(data) if self._limit is None else self._limit - self.kept
        if room:
            _write_at(self._spool, data[:room], self.kept)
        if self._half and len(data) > room:
            self._write_ring(data[room:], max(0, self.total - (self._limit or 0)))
        self.total += len(data)

    def read(self, offset: int, count: int) -> bytes:
        """At most `count` of the first bytes, from `offset` on."""
        return os.pread(self._spool, count, offset)

    def finish(self) -> None:
        """Turn the spool into the final output: when more came than fits, its two halves."""
        if self._limit is None or not self.elided:
            return
        beyond = self.total - self._limit
        # What has not been round the ring yet begins in the spool's own last bytes.
        tail = b"" if beyond >= self._half else self._last_of_spool(self._half - beyond)
        first = self._limit // 2
        os.ftruncate(self._spool, first)
        end = _write_at(self._spool, ELISION + tail, first)
        if not self._half:
            return
        start = beyond % self._half if beyond > self._half else 0
        end = self._copy_ring(start, min(beyond, self._half), end)
        self._copy_ring(0, start, end)

    def close(self) -> None:
        os.close(self._spool)
        if self._ring >= 0:
            os.close(self._ring)

    def _write_ring(self, data: bytes, position: int) -> None:
        if self._ring < 0:
            self._ring = _create(self._ring_path)
        skipped = max(0, len(data) - self._half)
        position = (position + skipped) % self._half
        rest = data[skipped:]
        first = rest[: self._half - position]
        _write_at(self._ring, first, position)
        _write_at(self._ring, rest[len(first) :], 0)

    def _last_of_spool(self, count: int) -> bytes:
        parts = []
        position = self.kept - count
        while count:
            part = os.pread(self._spool, min(count, _CHUNK), position)
            if not part:
                raise OSError("the end of the output is lost")
            parts.append(part)
            position += len(part)
            count -= len(part)
        return b"".join(parts)

    def _copy_ring(self, start: int, stop: int, end: int) -> int:
        while start < stop:
            part = os.pread(self._ring, min(_CHUNK, stop - start), start)
            if not part:
                raise OSError("the end of the output is lost")
            start += len(part)
            end = _write_at(self._spool, part, end)
        return end


def _create(path: str) -> int:
    """An empty file of that name; an old one's space is given back."""
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def _write_at(file: int, data: bytes, offset: int) -> int:
    """Write all of `data` at `offset`; return where it ends."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        offset += written
        rest = rest[written:]
    return offset
