"""Runs Terraform: output streamed as events, interruptible, with evidence when it fails."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tango_cloud.core.errors import TerraformError, TerraformKilled
from tango_cloud.terraform.binary import Binary
from tango_cloud.terraform.events import Diagnostic, Event, Outputs, parse

OnEvent = Callable[[Event], None]
OnStart = Callable[[int], None]

_CHUNK = 1 << 16
_KEPT_BYTES = 1 << 20
_EVIDENCE_CHARACTERS = 8000
_LINE_BYTES = 1 << 22
"""A line longer than this is no event of ours; it is passed on in pieces."""
_TICK_SECONDS = 0.1
"""How often a running Terraform is looked at for a cancel or its time-out."""
_PLUGIN_DIED = ("Plugin did not respond", "Failed to load plugin schemas")
"""What Terraform says of it, in the middle of its work and at its start."""


@dataclass(frozen=True, slots=True)
class Controls:
    """How a caller follows and ends a command.

    `on_start` is told the pid before anything else happens, `on_event` each event as it comes (both
    from the calling thread). It is interrupted soon after `cancelled` says so, which is asked from
    time to time, or after `timeout` (seconds, None: the runner's).
    """

    on_event: OnEvent | None = None
    on_start: OnStart | None = None
    cancelled: Callable[[], bool] | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A command that ended well: the end of its output, its outputs, its warnings."""

    stdout: str
    outputs: Mapping[str, object] = field(default_factory=dict)
    diagnostics: tuple[Diagnostic, ...] = ()


class Terraform:
    """One Terraform with one environment. Safe to use from many threads at once."""

    def __init__(
        self,
        binary: Binary,
        environment: Mapping[str, str],
        *,
        grace_seconds: float = 60,
        timeout_seconds: float = 3600,
    ) -> None:
        """`grace_seconds`: how long an interrupted Terraform may take to save its state before it
        is killed."""
        self.binary = binary
        self._environment = dict(environment)
        self._grace = grace_seconds
        self._timeout = timeout_seconds

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        controls: Controls | None = None,
        *,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        """Run one command in `folder`; return when it has ended well.

        `stdin` reaches it through a file without a name; `environment` is added to the runner's.
        Raises TerraformError when it fails, was cancelled, or took too long. However this ends,
        by an exception out of a callback or Ctrl-C too, Terraform has ended before.
        """
        controls = controls or Controls()
        argv = [*self.binary.argv, *arguments]
        # Its own session: Ctrl-C at the terminal reaches us alone, and we interrupt it once.
        with tempfile.TemporaryFile() as given:
            given.write(stdin.encode())
            given.seek(0)
            try:
                process = subprocess.Popen(
                    argv,
                    cwd=folder,
                    env=self._environment | dict(environment or {}),
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as error:
                raise TerraformError(argv, None, str(error)) from error
        watch = _Watch(process, controls, self._grace, self._timeout)
        with process:
            try:
                if controls.on_start is not None:
                    controls.on_start(process.pid)
                watch.follow()
            except BaseException:
                watch.interrupt("the caller failed")
                watch.follow(quietly=True)
                raise
        return watch.result(argv)


class _Watch:
    """One running Terraform."""

    def __init__(
        self, process: subprocess.Popen[bytes], controls: Controls, grace: float, timeout: float
    ) -> None:
        self._process = process
        self._on_event = controls.on_event
        self._cancelled = controls.cancelled
        self._grace = grace
        self._timeout = timeout if controls.timeout is None else controls.timeout
        self._deadline = time.monotonic() + self._timeout
        self._kill_at: float | None = None
        self._reason = ""
        self._line = bytearray()
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._diagnostics: list[Diagnostic] = []
        self._outputs: Mapping[str, object] = {}

    def follow(self, *, quietly: bool = False) -> None:
        """Read until it has ended. `quietly`: the callback has failed and is not called again."""
        if quietly:
            self._on_event = None
        with selectors.DefaultSelector() as selector:
            for stream, take in self._streams():
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ, take)
            # Its end counts, not the pipes': what a provisioner left behind may hold them open.
            while self._process.poll() is None:
                self._tick()
                if not selector.get_map():
                    self._wait_a_tick()
                for key, _ in selector.select(_TICK_SECONDS):
                    if not self._read_some(key.fd, key.data):
                        selector.unregister(key.fileobj)
            for key in list(selector.get_map().values()):
                while self._read_some(key.fd, key.data):
                    pass
        if self._line:
            self._take_line(bytes(self._line))
            self._line.clear()
        self._end_plugins()

    def _end_plugins(self) -> None:
        """A Terraform that was killed has not: they would wait for it for ever."""
        if self._process.returncode < 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _streams(self) -> Sequence[tuple[IO[bytes], Callable[[bytes], None]]]:
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout is not None  # noqa: S101  (both were asked for)
        assert stderr is not None  # noqa: S101
        return (stdout, self._take_stdout), (stderr, self._take_stderr)

    def _read_some(self, descriptor: int, take: Callable[[bytes], None]) -> bool:
        """Whether something was read: not at the end, and not when there is nothing just now."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        if data:
            take(data)
        return bool(data)

    def _wait_a_tick(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_TICK_SECONDS)

    def _tick(self) -> None:
        now = time.monotonic()
        if self._kill_at is not None:
            if now >= self._kill_at:
                self._signal_group()
        elif self._cancelled is not None and self._cancelled():
            self.interrupt("cancelled")
        elif now >= self._deadline:
            self.interrupt(f"still running after {self._timeout:.0f} s")

    def interrupt(self, reason: str) -> None:
        """Ask it to save its state and end. Not its group: provisioners and plugins are its own to
        end, and die half-way otherwise."""
        if self._kill_at is None and self._process.poll() is None:
            self._reason = reason
            self._kill_at = time.monotonic() + self._grace
            self._process.send_signal(signal.SIGINT)

    def _signal_group(self) -> None:
        self._reason = f"{self._reason}; killed {self._grace:.0f} s after the interrupt"
        self._kill_at = float("inf")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _take_stdout(self, data: bytes) -> None:
        self._stdout += data
        del self._stdout[:-_KEPT_BYTES]
        self._line += data
        *lines, rest = self._line.split(b"\n")
        self._line = rest if len(rest) < _LINE_BYTES else bytearray()
        for line in lines:
            self._take_line(bytes(line))

    def _take_line(self, line: bytes) -> None:
        event = parse(line.decode(errors="replace"))
        match event:
            case Diagnostic():
                self._diagnostics.append(event)
            case Outputs():
                self._outputs = event.values
        if self._on_event is not None:
            self._on_event(event)

    def _take_stderr(self, data: bytes) -> None:
        self._stderr += data
        del self._stderr[:-_KEPT_BYTES]

    def result(self, argv: Sequence[str]) -> Result:
        """What came of it. Raises TerraformError when that is nothing good."""
        status = self._process.returncode
        stdout = self._stdout.decode(errors="replace")
        # Also after an interrupt: it may have come when all was done.
        if status == 0:
            return Result(stdout, self._outputs, tuple(self._diagnostics))
        errors = [str(found) for found in self._diagnostics if found.is_error]
        evidence = self._stderr.decode(errors="replace") or stdout
        killed = status < 0 and not self._reason
        raise failed(
            argv,
            status if status >= 0 else None,
            evidence[-_EVIDENCE_CHARACTERS:],
            [*([self._reason] if self._reason else []), *errors],
            killed=killed,
        )


def failed(
    argv: Sequence[str],
    exit_code: int | None,
    stderr: str,
    diagnostics: Sequence[str],
    *,
    killed: bool = False,
) -> TerraformError:
    """The error of a command: TerraformKilled also where it was a plugin that died under it."""
    died = any(words in found for found in diagnostics for words in _PLUGIN_DIED)
    kind = TerraformKilled if killed or died else TerraformError
    return kind(argv, exit_code, stderr, diagnostics)
