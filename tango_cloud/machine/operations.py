"""What an agent does for jobs when asked: one function for each operation of a session."""

from __future__ import annotations

import contextlib
import os
import platform
import zlib
from collections.abc import Mapping
from typing import IO, Any

from tango_cloud.machine import artifacts, frames, processes
from tango_cloud.machine.artifacts import Wanted
from tango_cloud.machine.cleaning import Cleaning
from tango_cloud.machine.driver import DISK, GONE, TIME, Driver
from tango_cloud.machine.facts import Facts
from tango_cloud.machine.failures import DAMAGED, MISSING, REFUSED, ConnectionGone, Failure
from tango_cloud.machine.folders import Folders
from tango_cloud.machine.frames import DataStream
from tango_cloud.machine.launch import Launch, Sandbox
from tango_cloud.machine.levels import Choice, choose
from tango_cloud.machine.output import Output
from tango_cloud.machine.rlimits import Limits
from tango_cloud.machine.wire import Wire
from tango_cloud.machine.worker import EMPTY, FILL, FILL_GZIP, FilesWorker

COMMAND = ("make",)
_CHUNK = 1 << 18
_END_SECONDS = 5.0
_GZIP = 31
"""zlib's code for a gzip wrapper and the largest window."""


class Operations:
    """The operations of one agent. Each answers its request, or raises Failure."""

    def __init__(self, wire: Wire, facts: Facts) -> None:
        self._wire = wire
        self._facts = facts
        self._folders = Folders(facts)
        self._worker = FilesWorker(facts, self._folders, wire.read)
        self._cleaning = Cleaning(self._folders, self._worker)
        self._choice: Choice | None = None
        self._sandbox: Sandbox | None = None
        self._network = True

    def do_ping(self, _: Mapping[str, Any]) -> None:
        self._cleaning.settle(self._wire.tick)
        self._wire.reply({})

    def do_report(self, _: Mapping[str, Any]) -> None:
        self._cleaning.settle(self._wire.tick)
        self._folders.prepare()
        choice = self._chosen()
        self._wire.reply(
            {
                "level": choice.level.name,
                "separate_user": self._facts.separate,
                "network_control": choice.network_control,
                "python": platform.python_version(),
                "missing": choice.missing,
            }
        )

    def do_put(self, request: Mapping[str, Any]) -> None:
        """Empty the job directory and fill it from the DATA frames that follow the request."""
        with contextlib.ExitStack() as stack:
            try:
                self._cleaning.settle(self._wire.tick)
                self._folders.prepare()
                self._worker.ready()
                with contextlib.suppress(Failure):  # `run` tells it
                    self._chosen()
                stack.enter_context(self._folders.locked(self._wire.tick))
                self._folders.forget_output()
            except (Failure, OSError):
                DataStream(self._wire.read).drain()  # the next frame must be the next request
                raise
            self._worker.begin(FILL_GZIP if request.get("gzip") else FILL)
            # While that goes on, there is time for what `run` would have to do.
            self.prepare_ahead()
            if self._sandbox is not None:
                self._sandbox.count()
            self._worker.finish(self._wire.tick)
        self._wire.reply({})

    def do_run(self, request: Mapping[str, Any]) -> None:
        """Run the job and tell its outcome. What it left is removed after that, but for a copy of
        its artifacts: `get` and `collect` may follow at once, all else waits for it. A job that is
        refused leaves the reason as its output."""
        self._cleaning.settle(self._wire.tick)
        self._folders.prepare()
        with contextlib.ExitStack() as held:
            held.enter_context(self._folders.locked(self._wire.tick))
            self._folders.forget_output()
            try:
                limits, choice = self._accept(request)
                wanted = Wanted.parse(request)
            except Failure as failure:
                Output(self._folders.spool, self._folders.ring, None).close()
                reason = " ".join(failure.message.split())
                self._folders.write_outcome(f"Autodriver: Job refused: {reason}\n".encode())
                raise
            self._network = limits.network
            outcome = self._run(choice, limits, wanted, bool(request.get("live")), held)
        self._wire.reply(outcome)

    def _accept(self, request: Mapping[str, Any]) -> tuple[Limits, Choice]:
        """What the job is to run under. Raises Failure when this machine cannot give that."""
        limits = Limits.parse(request)
        choice = self._chosen()
        if not limits.network and not choice.network_control:
            reason = "; ".join(choice.missing)
            raise Failure(REFUSED, f"this machine cannot run a job without network: {reason}")
        if limits.cpus is not None and not choice.level.whole_job:
            reason = "; ".join(choice.missing)
            raise Failure(REFUSED, f"this machine cannot limit processor time: {reason}")
        return limits, choice

    def _run(
        self,
        choice: Choice,
        limits: Limits,
        wanted: Wanted,
        live: bool,
        held: contextlib.ExitStack,
    ) -> dict[str, Any]:
        folders = self._folders
        sandbox = self._take_sandbox(choice)
        with contextlib.ExitStack() as stack:
            stack.callback(sandbox.discard)
            output = Output(folders.spool, folders.ring, limits.output_bytes)
            stack.callback(output.close)
            sink = -1
            if wanted.paths:
                sink = folders.create_artifacts()
                stack.callback(os.close, sink)
            driver = Driver(self._wire, sandbox, output, live, self._worker.processes())
            try:
                outcome = driver.run(limits)
                if wanted.paths and not outcome.get("cancelled"):
                    outcome["artifacts"] = artifacts.keep(
                        wanted, sink, self._facts, folders, self._wire.tick
                    )
            finally:
                self._cleaning.begin(held.pop_all())
            if driver.stopped == GONE:
                raise ConnectionGone
            if not outcome.get("cancelled"):
                try:
                    self._keep(output, header(driver, outcome, limits))
                except OSError as error:
                    raise Failure(DAMAGED, f"cannot keep the output: {error}") from error
        return outcome

    def _keep(self, output: Output, first: bytes) -> None:
        """Complete the output. Raises OSError when there is no room for that, even with the job's
        files gone."""
        if output.elided:
            self._cleaning.wait(self._wire.tick)  # moving its end cannot be tried twice
            output.finish()
        try:
            self._folders.write_outcome(first)
        except OSError:
            self._cleaning.wait(self._wire.tick)
            self._folders.write_outcome(first)

    def when_idle(self) -> None:
        """Get ready for the next job."""
        self._cleaning.wait(self._wire.tick)
        self.prepare_ahead()

    def prepare_ahead(self) -> None:
        """Start making the sandbox of the next job, if none waits. What is wrong is told by `run`.

        It is made for a job with network if the last one had it: most machines' jobs are alike.
        """
        with contextlib.suppress(Failure, OSError):
            launch = Launch(self._facts, self._folders, self._network, COMMAND)
            level = self._chosen().level
            if self._sandbox is not None and not self._sandbox.fits(level, launch):
                self._sandbox.discard()
                self._sandbox = None
            if self._sandbox is None:
                self._sandbox = Sandbox(level, launch)

    def _take_sandbox(self, choice: Choice) -> Sandbox:
        self.prepare_ahead()
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is None:
            raise Failure(DAMAGED, f"no sandbox of the level {choice.level.name} can be made")
        return sandbox

    def close(self) -> None:
        """Finish what is left to do of a job, and end the agent's children."""
        self._cleaning.wait(lambda: None)
        if self._sandbox is not None:
            self._sandbox.discard()
            self._sandbox = None
        self._worker.close()
        # bubblewrap, killed while it starts, leaves a child that waits for it, and is ours now.
        processes.end_descendants(_END_SECONDS)

    def do_get(self, request: Mapping[str, Any]) -> None:
        """Send the last job's header line and output as DATA frames."""
        try:
            with open(self._folders.outcome, "rb") as file:
                first = file.read()
            spool = open(self._folders.spool, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            raise Failure(MISSING, "no job has run to its end since the last copy-in") from None
        with spool:
            self._send(spool, request, first)

    def do_collect(self, request: Mapping[str, Any]) -> None:
        """Send the archive of the last job's artifacts as DATA frames."""
        try:
            archive = open(self._folders.artifacts, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            raise Failure(MISSING, "no artifacts were asked for when the last job ran") from None
        with archive:
            self._send(archive, request)

    def _send(self, file: IO[bytes], request: Mapping[str, Any], first: bytes = b"") -> None:
        """Send `first` and the file, END along with the last of it: most answers are one packet
        then."""
        compress = zlib.compressobj(1, wbits=_GZIP) if request.get("gzip") else None
        part = first + file.read(_CHUNK)
        waiting = b""
        while part:
            self._wire.send_raw(waiting)
            waiting = frames.encode(frames.DATA, compress.compress(part) if compress else part)
            part = file.read(_CHUNK)
        if compress:
            waiting += frames.encode(frames.DATA, compress.flush())
        self._wire.send_raw(waiting + frames.encode(frames.END))

    def do_peek(self, request: Mapping[str, Any]) -> None:
        """Send the first `limit` bytes of the output so far as DATA frames."""
        missing = int(request["limit"])
        with contextlib.suppress(FileNotFoundError), open(self._folders.spool, "rb") as spool:
            while missing > 0:
                part = spool.read(min(missing, _CHUNK))
                if not part:
                    break
                missing -= len(part)
                self._wire.send(frames.DATA, part)
        self._wire.send(frames.END)

    def do_wipe(self, _: Mapping[str, Any]) -> None:
        """Remove everything of the last job: its files and its output."""
        self._cleaning.settle(self._wire.tick)
        self._folders.prepare()
        with self._folders.locked(self._wire.tick):
            self._folders.forget_output()
            self._worker.do(EMPTY, self._wire.tick)
        self._wire.reply({})

    def _chosen(self) -> Choice:
        if self._choice is None:
            self._choice = choose(self._facts, self._folders, self._wire.tick)
        return self._choice


def header(driver: Driver, outcome: Mapping[str, Any], limits: Limits) -> bytes:
    """The line before the output, as Tango's autodriver words it where it has words."""
    if driver.stopped == TIME:
        said = f"timed out after {limits.wall_seconds:g} seconds"
    elif driver.stopped == DISK:
        said = f"stopped: {driver.stopped_detail}"
    else:
        said = f"exited with status {outcome['exit_status']}"
    return f"Autodriver: Job {said}\n".encode()
