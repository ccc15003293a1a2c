"""The driver: runs one job under its limits and returns once nothing of it is left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import time
from collections.abc import Collection, Iterator
from typing import Any

from tango_cloud.machine import frames, processes
from tango_cloud.machine.disk import DiskWatch
from tango_cloud.machine.failures import DAMAGED, Failure
from tango_cloud.machine.launch import Sandbox
from tango_cloud.machine.output import Output
from tango_cloud.machine.rlimits import Limits
from tango_cloud.machine.usage import Usage
from tango_cloud.machine.wire import SAFE_WRITE, Wire

GRACE_SECONDS = 1.0
"""Between SIGTERM and SIGKILL for a job whose time is up."""
_TICK_SECONDS = 1.0
_KILL_AGAIN_SECONDS = 0.01
_END_SECONDS = 5.0
_DRAIN_SECONDS = 1.0
_CHUNK = 1 << 16
_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031

TIME = "time"
DISK = "disk"
CANCELLED = "cancelled"
GONE = "gone"


class Driver:
    """One job's run in a sandbox that waits for it. `live`: whether output is sent as it comes.

    `spared` are the agent's other children, which the job's end is not the end of.
    """

    def __init__(
        self, wire: Wire, sandbox: Sandbox, output: Output, live: bool, spared: Collection[int]
    ) -> None:
        self._wire = wire
        self._sandbox = sandbox
        self._output = output
        self._spared = spared
        self._live = live
        self._sent = 0
        self._outgoing = b""
        self._next_tick = 0.0
        self._kill_at = float("inf")
        self._usage = Usage()
        self.stopped = ""
        """Why the job was stopped: one of this module's words, or empty."""
        self.stopped_detail = ""

    def run(self, limits: Limits) -> dict[str, Any]:
        """Run the job. Returns a RunOutcome's fields, or fewer when it was cancelled.

        Raises Failure (damaged) when the job could not be started, or something of it cannot be
        killed. The connection's end stops the job like a cancellation (`stopped` is GONE).
        """
        sandbox = self._sandbox
        with contextlib.suppress(OSError):  # fewer, larger reads from a job that prints much
            fcntl.fcntl(sandbox.output, _F_SETPIPE_SZ, _PIPE_BYTES)
        with _woken_by_children() as woken, sandbox.launch.folders.opened() as tops:
            watch = DiskWatch(tops, limits.disk_bytes)
            began = time.monotonic()
            if watch.full():
                sandbox.discard()
                raise Failure(DAMAGED, "its disk was full before the job began")
            with contextlib.suppress(BrokenPipeError):  # it failed already; `fault` says why
                sandbox.go(limits)
            try:
                ended = self._attend(woken, watch, began, began + limits.wall_seconds)
            except BaseException:
                sandbox.discard()
                raise
            wall_seconds = time.monotonic() - began
        if not processes.end_descendants(_END_SECONDS, self._spared, self._usage.reaped):
            raise Failure(DAMAGED, "processes of the job cannot be killed")
        if sandbox.group is not None:
            self._usage.told(*sandbox.group.used())
        self._drain()
        if not self.stopped:
            fault = sandbox.fault()
            if fault:
                raise Failure(DAMAGED, f"the job could not be started: {fault}")
        if self.stopped in (CANCELLED, GONE):
            return {"cancelled": True}
        self._flush()
        return {
            "exit_status": None if self.stopped else processes.shell_status(ended),
            "timed_out": self.stopped == TIME,
            "disk_exceeded": self.stopped == DISK,
            "wall_seconds": wall_seconds,
            "cpu_seconds": self._usage.cpu_seconds,
            "peak_memory_bytes": self._usage.peak_memory_bytes,
            "output_bytes": self._output.total,
            "level": sandbox.level.name,
        }

    def _attend(self, woken: int, watch: DiskWatch, began: float, deadline: float) -> int:
        """Serve the job's output, its limits and the connection until its first process ends;
        return its wait status."""
        reader = self._sandbox.output
        self._next_tick = began + _TICK_SECONDS
        reading = [reader, woken, self._wire.source]
        while True:
            until = min(deadline, self._next_tick, watch.next_look, self._kill_at)
            writing = [self._wire.sink] if self._has_outgoing() else []
            ready, writable, _ = select.select(
                reading, writing, [], max(0.0, until - time.monotonic())
            )
            if woken in ready:
                os.read(woken, _CHUNK)
            if reader in ready and not self._collect():
                reading.remove(reader)
            if writable:
                self._send_some()
            if self._wire.source in ready and not self._listen():
                reading.remove(self._wire.source)
            process, ended, usage = os.wait4(self._sandbox.process, os.WNOHANG)
            if process:
                self._usage.reaped(usage)
                return ended
            now = time.monotonic()
            if now >= deadline:
                deadline = float("inf")
                self._stop(TIME)
            if watch.exceeded():
                self._stop(DISK, watch.reason)
            self._tick(now)
            self._kill_when_due(now)

    def _stop(self, reason: str, detail: str = "") -> None:
        """Begin to end the job; the first reason stands. Only a time-out leaves it any grace."""
        if self.stopped:
            return
        self.stopped, self.stopped_detail = reason, detail
        self._kill_at = time.monotonic()
        found = processes.descendants(self._sandbox.process)
        self._usage.look_at(found)  # once make has ended, its init takes the others with it
        if reason == TIME:
            processes.send(found, signal.SIGTERM)
            self._kill_at += GRACE_SECONDS

    def _kill_when_due(self, now: float) -> None:
        """Kill all but the first process, which ends when the rest has.

        Again and again: a job that forks without end may get one past a single pass.
        """
        if now < self._kill_at:
            return
        self._kill_at = now + _KILL_AGAIN_SECONDS
        if self._sandbox.group is not None:
            self._sandbox.group.kill()
            return
        found = processes.descendants(self._sandbox.process)
        processes.send(found, signal.SIGSTOP)
        self._usage.look_at(found)
        processes.send(found or [self._sandbox.process], signal.SIGKILL)

    def _collect(self) -> bool:
        """Take what the job printed; whether more may come."""
        data = os.read(self._sandbox.output, _CHUNK)
        if data and self.stopped != DISK:
            try:
                self._output.write(data)
            except OSError as error:
                self.stopped, self.stopped_detail = DISK, f"its output: {error.strerror}"
                self._kill_at = 0.0
        return bool(data)

    def _drain(self) -> None:
        """What is still in the pipe. Everything that wrote to it is dead, so it ends."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        reading = [self._sandbox.output]
        while time.monotonic() < deadline and select.select(reading, [], [], _DRAIN_SECONDS)[0]:
            if not self._collect():
                return

    def _listen(self) -> bool:
        """Take a frame from the connection; whether more may come."""
        try:
            frame = self._wire.next_frame()
        except (frames.StreamBroken, OSError):
            frame = None
        if frame is None or frame[0] == frames.CANCEL:
            self.stopped = GONE if frame is None else CANCELLED
            self._kill_at = 0.0
        return frame is not None

    def _has_outgoing(self) -> bool:
        return bool(self._outgoing) or (self._live and self._sent < self._output.kept)

    def _send_some(self) -> None:
        """Send as much as goes without waiting: a slow link must not hold up the limits.

        Output is taken from the spool, where it stands anyway, so that nothing piles up in memory.
        """
        if not self._outgoing:
            data = self._output.read(self._sent, SAFE_WRITE)
            self._sent += len(data)
            self._outgoing = frames.encode(frames.OUTPUT, data)
        try:
            sent = os.write(self._wire.sink, self._outgoing[:SAFE_WRITE])
        except OSError:  # the connection's end; its other direction will tell
            self._live, self._outgoing = False, b""
            return
        self._outgoing = self._outgoing[sent:]

    def _tick(self, now: float) -> None:
        if now >= self._next_tick:
            self._next_tick = now + _TICK_SECONDS
            if not self._outgoing:
                self._outgoing = frames.encode(frames.TICK)

    def _flush(self) -> None:
        """Send the rest of the live output. Raises OSError when the connection is gone."""
        self._wire.send_raw(self._outgoing)
        while self._live and self._sent < self._output.kept:
            data = self._output.read(self._sent, min(_CHUNK, self._output.kept - self._sent))
            self._sent += len(data)
            self._wire.send(frames.OUTPUT, data)


@contextlib.contextmanager
def _woken_by_children() -> Iterator[int]:
    """A pipe that becomes readable when a child ends."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    handler = signal.signal(signal.SIGCHLD, lambda *_: None)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(previous)
        signal.signal(signal.SIGCHLD, handler)
        os.close(reader)
        os.close(writer)
