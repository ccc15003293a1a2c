"""Frames: how the two ends of an agent's channel talk.

A frame is one byte of kind, four bytes of length (big-endian) and the payload. Control frames carry
JSON, the others bytes. Everything that is read has a known length, so neither end ever reads past
what it was sent for: a forked child can take over the stream in the middle.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

REQUEST = 1
"""To the agent, JSON: one operation and its arguments."""
REPLY = 2
"""From the agent, JSON: the operation is done."""
FAILURE = 3
"""From the agent, JSON with `kind` and `message`: the operation failed."""
DATA = 4
"""Either way: the next bytes of a file or an archive."""
END = 5
"""Either way, empty: no more DATA follows."""
ABORT = 6
"""To the agent, empty: what was sent as DATA is worthless, throw it away."""
OUTPUT = 7
"""From the agent: what a running job has printed."""
TICK = 8
"""From the agent, empty: still at work. Sent at least once a second during an operation."""
CANCEL = 9
"""To the agent, empty: stop the job that runs now."""

MAX_PAYLOAD = 1 << 20
"""Bytes. A longer frame is a sign of two ends out of step, not of a need."""

_HEADER = struct.Struct(">BI")
_KINDS = range(REQUEST, CANCEL + 1)

ReadSome = Callable[[int], bytes]
"""Reads at most so many bytes, at least one; `b""` only at the end of the stream."""


class StreamBroken(Exception):
    """The stream ended within a frame, or what it carries is no frame."""


def encode(kind: int, payload: bytes = b"") -> bytes:
    """One frame. Raises ValueError when the payload is longer than MAX_PAYLOAD."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a frame of {len(payload)} bytes")
    return _HEADER.pack(kind, len(payload)) + payload


def encode_json(kind: int, value: Any) -> bytes:
    return encode(kind, json.dumps(value, separators=(",", ":")).encode())


def read_exactly(read: ReadSome, count: int) -> bytes:
    """`count` bytes. Raises StreamBroken when the stream ends before."""
    parts = []
    missing = count
    while missing:
        part = read(missing)
        if not part:
            raise StreamBroken(f"the stream ended {missing} bytes early")
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_frame(read: ReadSome) -> tuple[int, bytes] | None:
    """The next frame's kind and payload; None when the stream ends between two frames.

    Raises StreamBroken when it ends elsewhere or carries something else.
    """
    header = _read_header(read)
    return None if header is None else (header[0], read_exactly(read, header[1]))


def _read_header(read: ReadSome) -> tuple[int, int] | None:
    """The next frame's kind and its payload's length."""
    first = read(1)
    if not first:
        return None
    kind, length = _HEADER.unpack(first + read_exactly(read, _HEADER.size - 1))
    if kind not in _KINDS or length > MAX_PAYLOAD:
        raise StreamBroken(f"no frame: kind {kind}, {length} bytes")
    return kind, length


def decode_json(payload: bytes) -> dict[str, Any]:
    """A control frame's payload. Raises StreamBroken when it is not a JSON object."""
    try:
        value = json.loads(payload)
    except ValueError as error:
        raise StreamBroken(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise StreamBroken("not a JSON object")
    return value


class DataStream:
    """The bytes of a run of DATA frames, read like a file, up to END.

    They are handed on as they come: the reader works while the rest of a frame is under way.
    `aborted` turns true when the sender gave up (ABORT): the stream ends then, too.
    """

    def __init__(self, read: ReadSome) -> None:
        self._read = read
        self._rest = memoryview(b"")
        self._missing = 0  # bytes of the frame that is being read
        self._open = True
        self.aborted = False

    def read(self, limit: int) -> bytes:
        """At most `limit` bytes; `b""` at the end. Raises StreamBroken when the sender is gone."""
        while not self._rest and self._open:
            if not self._missing:
                self._begin_frame()
            elif came := self._read(self._missing):
                self._missing -= len(came)
                self._rest = memoryview(came)
            else:
                raise StreamBroken(f"the stream ended {self._missing} bytes early")
        part = bytes(self._rest[:limit])
        self._rest = self._rest[limit:]
        return part

    def _begin_frame(self) -> None:
        header = _read_header(self._read)
        if header is None:
            raise StreamBroken("the sender is gone")
        kind, length = header
        if kind == DATA:
            self._missing = length
        elif kind in (END, ABORT) and not length:
            self._open = False
            self.aborted = kind == ABORT
        else:
            raise StreamBroken(f"frame {kind} among data")

    def drain(self) -> None:
        """Throw the rest away, so that the next frame read is the one after it."""
        while self.read(MAX_PAYLOAD):
            pass
