"""The agent's end of its channel: frames on standard input and output."""

from __future__ import annotations

import os
from typing import Any

from tango_cloud.machine import frames
from tango_cloud.machine.failures import Failure

SAFE_WRITE = 4096
"""Bytes that a write takes at once whenever select calls the stream writable."""


class Wire:
    """Reads and writes whole frames. OSError (broken pipe) means that the other end is gone."""

    def __init__(self, source: int = 0, sink: int = 1) -> None:
        self.source = source
        self.sink = sink

    def read(self, limit: int) -> bytes:
        return os.read(self.source, limit)

    def hang_up(self) -> None:
        """From now on be as if the other end were gone. For a signal handler: nothing is cut short,
        what reads finds the end and what writes a broken pipe, also where it waits already."""
        for place, own in ((self.source, 0), (self.sink, 1)):
            ends = os.pipe()
            os.close(ends[1 - own])
            os.dup2(ends[own], place)
            os.close(ends[own])

    def next_frame(self) -> tuple[int, bytes] | None:
        return frames.read_frame(self.read)

    def send(self, kind: int, payload: bytes = b"") -> None:
        self.send_raw(frames.encode(kind, payload))

    def send_raw(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.sink, rest) :]

    def reply(self, value: Any) -> None:
        self.send_raw(frames.encode_json(frames.REPLY, value))

    def fail(self, failure: Failure) -> None:
        told = {"kind": failure.kind, "message": failure.message}
        self.send_raw(frames.encode_json(frames.FAILURE, told))

    def tick(self) -> None:
        self.send(frames.TICK)
