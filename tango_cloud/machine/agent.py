"""The agent: serves one channel's requests until the channel closes."""

from __future__ import annotations

import contextlib
import os

from tango_cloud.machine import facts, frames, syscalls
from tango_cloud.machine.failures import Failure
from tango_cloud.machine.operations import ConnectionGone, Operations
from tango_cloud.machine.wire import Wire


def main() -> None:
    """Say hello, then answer requests one after another. Returns when the other end is gone."""
    os.umask(0o077)
    os.chdir("/")
    with contextlib.suppress(OSError):  # not Linux; the level "limits" says what follows
        syscalls.adopt_orphans()
    wire = Wire()
    try:
        operations = Operations(wire, facts.load(os.environ))
    except Failure as failure:
        wire.fail(failure)
        return
    wire.reply({"hello": 1})
    with contextlib.suppress(BrokenPipeError, frames.StreamBroken, ConnectionGone):
        _serve(wire, operations)


def _serve(wire: Wire, operations: Operations) -> None:
    while True:
        frame = wire.next_frame()
        if frame is None:
            return
        kind, payload = frame
        if kind == frames.CANCEL:
            continue  # it came too late: its job had ended by itself
        if kind != frames.REQUEST:
            raise frames.StreamBroken(f"frame {kind} instead of a request")
        try:
            operations.perform(frames.decode_json(payload))
        except Failure as failure:
            wire.fail(failure)
