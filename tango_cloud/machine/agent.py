"""The agent: serves one channel's requests until the channel closes."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys

from tango_cloud.machine import facts, frames, syscalls
from tango_cloud.machine.failures import DAMAGED, Failure
from tango_cloud.machine.operations import ConnectionGone, Operations
from tango_cloud.machine.wire import Wire

_IDLE_SECONDS = 0.002
"""How long an agent that has run a job waits for the next request before it gets ready for it."""


def main() -> None:
    """Say hello, then answer requests one after another. Returns when the other end is gone."""
    os.umask(0o077)
    os.chdir("/")
    with contextlib.suppress(OSError):  # not Linux; the level "limits" says what follows
        syscalls.adopt_orphans()
    # A server may end us rather than close our input; either way a running job is ended first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    wire = Wire()
    try:
        operations = Operations(wire, facts.load(os.environ))
    except Failure as failure:
        wire.fail(failure)
        return
    gc.freeze()  # what is there now stays: forked children need not copy it when they look at it
    wire.reply({"hello": 1})
    with contextlib.suppress(BrokenPipeError, frames.StreamBroken, ConnectionGone):
        try:
            _serve(wire, operations)
        finally:
            operations.close()


def _serve(wire: Wire, operations: Operations) -> None:
    has_run = False
    while True:
        if has_run and not select.select([wire.source], [], [], _IDLE_SECONDS)[0]:
            operations.when_idle()
        frame = wire.next_frame()
        if frame is None:
            return
        kind, payload = frame
        if kind == frames.CANCEL:
            continue  # it came too late: its job had ended by itself
        if kind != frames.REQUEST:
            raise frames.StreamBroken(f"frame {kind} instead of a request")
        request = frames.decode_json(payload)
        has_run = has_run or request.get("op") == "run"
        try:
            operations.perform(request)
        except Failure as failure:
            wire.fail(failure)
        except BrokenPipeError:
            raise
        except OSError as error:
            wire.fail(Failure(DAMAGED, f"{type(error).__name__}: {error}"))
