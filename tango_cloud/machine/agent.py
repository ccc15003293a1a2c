"""The agent: serves one channel's requests until the channel closes."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tango_cloud.machine import facts, frames, hostkey, syscalls
from tango_cloud.machine.facts import Facts
from tango_cloud.machine.failures import DAMAGED, REFUSED, ConnectionGone, Failure
from tango_cloud.machine.wire import Wire

if TYPE_CHECKING:
    from tango_cloud.machine.operations import Operations

_IDLE_SECONDS = 0.002
"""How long an agent waits for the next request before it gets ready for it."""


def main() -> None:
    """Say hello, then answer requests one after another. Returns when the other end is gone."""
    os.umask(0o077)
    os.chdir("/")
    with contextlib.suppress(OSError):  # not Linux; the level "limits" says what follows
        syscalls.adopt_orphans()
    wire = Wire()
    # A server may end us rather than close our input. An exception out of the handler could come
    # at any line, also between the end of the input and the removal of a job's files.
    signal.signal(signal.SIGTERM, lambda *_: wire.hang_up())
    try:
        agent = _Agent(wire, facts.load(os.environ))
    except Failure as failure:
        wire.fail(failure)
        return
    wire.reply({"hello": 1})
    with contextlib.suppress(BrokenPipeError, frames.StreamBroken, ConnectionGone):
        try:
            agent.serve()
        finally:
            agent.close()


class _Agent:
    """Answers requests. What runs jobs is loaded when it is first needed, or while there is nothing
    else to do: it is most of the program, and the first connection to a new machine is only there
    to change the host key."""

    def __init__(self, wire: Wire, machine: Facts) -> None:
        self._wire = wire
        self._facts = machine
        self._operations: Operations | None = None
        self._has_run = False

    def serve(self) -> None:
        while True:
            if not select.select([self._wire.source], [], [], _IDLE_SECONDS)[0]:
                self._get_ready()
            frame = self._wire.next_frame()
            if frame is None:
                return
            kind, payload = frame
            if kind == frames.CANCEL:
                continue  # it came too late: its job had ended by itself
            if kind != frames.REQUEST:
                raise frames.StreamBroken(f"frame {kind} instead of a request")
            try:
                self._perform(frames.decode_json(payload))
            except Failure as failure:
                self._wire.fail(failure)
            except BrokenPipeError:
                raise
            except OSError as error:
                self._wire.fail(Failure(DAMAGED, f"{type(error).__name__}: {error}"))

    def close(self) -> None:
        if self._operations is not None:
            self._operations.close()

    def _perform(self, request: Mapping[str, Any]) -> None:
        """Do what `request["op"]` names."""
        name = str(request.get("op"))
        if name == "stage_host_key":
            self._wire.reply({"public_key": hostkey.stage(self._facts)})
        elif name == "activate_host_key":
            hostkey.activate(self._facts)
            self._wire.reply({})
        else:
            operation = getattr(self._load(), "do_" + name, None)
            if operation is None:
                raise Failure(REFUSED, f"unknown operation {name!r}")
            self._has_run = self._has_run or name == "run"
            operation(request)

    def _get_ready(self) -> None:
        operations = self._load()
        if self._has_run:
            operations.when_idle()

    def _load(self) -> Operations:
        if self._operations is None:
            from tango_cloud.machine.operations import Operations

            self._operations = Operations(self._wire, self._facts)
            gc.freeze()  # what is there now stays: forked children need not copy it by looking
        return self._operations
