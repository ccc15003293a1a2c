"""A session: one machine, connected, with an agent for its jobs and one for questions meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import paramiko

from tango_cloud.core.errors import InputError, MachineUnreachable, TangoCloudError
from tango_cloud.core.model import Endpoint
from tango_cloud.transports import archive
from tango_cloud.transports import artifacts as kept
from tango_cloud.transports.failures import IN_STEP
from tango_cloud.transports.protocol import (
    NO_ARTIFACTS,
    Artifacts,
    InputFile,
    MachineReport,
    OnOutput,
    RunLimits,
    RunOutcome,
)
from tango_cloud.transports.ssh.channel import SILENCE_SECONDS, AgentChannel
from tango_cloud.transports.streams import decompressed, write_atomically

_Result = TypeVar("_Result")


class SshSession:
    """Satisfies `Session`. Made by `SshTransport.connect`.

    Put, run and get use the first agent, one after another. Everything else uses it too while it is
    idle, and otherwise a second one on a channel of its own, opened when it is first needed.
    """

    def __init__(
        self, transport: paramiko.Transport, agent: AgentChannel, endpoint: Endpoint
    ) -> None:
        self._transport = transport
        self._agent = agent
        self._compress = endpoint.compress
        self._sudo = endpoint.sudo
        self._second: AgentChannel | None = None
        self._second_lock = threading.Lock()
        self._starting = threading.Lock()
        self._running = False

    def report(self) -> MachineReport:
        return MachineReport.parse(self._aside(lambda agent: agent.ask("report")))

    def put(self, files: Sequence[InputFile]) -> None:
        pieces = archive.pack(files, compress=self._compress)
        with self._closed_when_broken(), self._agent.lock:
            self._agent.request("put", gzip=self._compress)
            try:
                self._agent.send_data(pieces)
            except InputError:
                self._agent.reply()  # the machine has emptied the directory again
                raise
            self._agent.reply()

    def run(
        self,
        limits: RunLimits,
        on_output: OnOutput | None = None,
        artifacts: Artifacts = NO_ARTIFACTS,
    ) -> RunOutcome:
        request = {**asdict(limits), **kept.request(artifacts)}
        with self._closed_when_broken(), self._agent.lock:
            try:
                told = self._run(request, on_output)
            finally:
                self._running = False
            if told.get("cancelled"):
                raise MachineUnreachable("the job was cancelled")
            return kept.outcome(told, artifacts)

    def _run(self, request: Mapping[str, Any], on_output: OnOutput | None) -> dict[str, Any]:
        with self._starting:
            live = on_output is not None
            self._agent.request("run", live=live, **request)
            self._running = True
        for answer in self._agent.output_then_reply():
            if isinstance(answer, dict):
                return answer
            if on_output is not None:
                on_output(answer)
        raise MachineUnreachable("the machine stopped answering")

    def cancel(self) -> None:
        # A cancellation that overtook its job's request would be taken for a late one.
        with self._starting, contextlib.suppress(MachineUnreachable):
            if self._running:
                self._agent.cancel()

    def get(self, local: Path) -> None:
        with self._closed_when_broken(), self._agent.lock:
            write_atomically(local, self._answer_to("get"))

    def collect(self, local: Path, limit_bytes: int) -> None:
        with self._closed_when_broken(), self._agent.lock:
            kept.unpack(self._answer_to("collect"), local, limit_bytes)

    def _answer_to(self, operation: str) -> Iterable[bytes]:
        self._agent.request(operation, gzip=self._compress)
        pieces = self._agent.data()
        return decompressed(pieces) if self._compress else pieces

    def peek(self, limit: int) -> bytes:
        def ask(agent: AgentChannel) -> bytes:
            agent.request("peek", limit=limit)
            return b"".join(agent.data())

        return self._aside(ask)

    def stage_host_key(self) -> str:
        return str(self._aside(lambda agent: agent.ask("stage_host_key"))["public_key"])

    def activate_host_key(self) -> None:
        self._aside(lambda agent: agent.ask("activate_host_key"))

    @property
    def open(self) -> bool:
        return bool(self._transport.is_active())

    def alive(self) -> bool:
        try:
            self._aside(lambda agent: agent.ask("ping"))
        except TangoCloudError:
            return False
        return True

    def close(self) -> None:
        self._transport.close()

    def _aside(self, exchange: Callable[[AgentChannel], _Result]) -> _Result:
        """Do the exchange with an agent that is free: at once, whatever the first one is doing."""
        if self._agent.lock.acquire(blocking=False):
            try:
                with self._closed_when_broken():
                    return exchange(self._agent)
            finally:
                self._agent.lock.release()
        with self._second_lock:
            if self._second is None:
                self._second = AgentChannel.start(self._transport, SILENCE_SECONDS, sudo=self._sudo)
            try:
                return exchange(self._second)
            except IN_STEP:
                raise
            except BaseException:
                # Only the second agent is lost for certain: a job on the first one goes on.
                self._second.close()
                self._second = None
                raise

    @contextlib.contextmanager
    def _closed_when_broken(self) -> Iterator[None]:
        """Close the connection when the two ends may be out of step: it is of no use then, and a
        job that runs on it must not go on with nobody listening."""
        try:
            yield
        except IN_STEP:
            raise
        except BaseException:
            self.close()
            raise
