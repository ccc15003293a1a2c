"""A session: one machine, and a playbook for each thing that is asked of it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tango_cloud.core.errors import Fault, InputError, MachineUnreachable, TangoCloudError
from tango_cloud.machine import bundle
from tango_cloud.transports import archive
from tango_cloud.transports import artifacts as kept
from tango_cloud.transports.ansible.answers import answers, reply
from tango_cloud.transports.ansible.gathering import Gathering
from tango_cloud.transports.ansible.host import Host
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
from tango_cloud.transports.streams import decompressed, write_atomically

_CHUNK = 1 << 18
_AT_HAND = 1 << 17
"""Bytes of an archive that go along with the request; a larger one is copied first."""
_CANCEL_SECONDS = 60.0
"""For a job to end and its files to go."""


class AnsibleSession:
    """Satisfies `Session`. Made by `AnsibleTransport.connect`.

    Each call is a playbook, by itself or in a run with those of other machines' sessions. Calls may
    come from many threads; OpenSSH keeps the connection that they share.
    """

    def __init__(self, host: Host, gathering: Gathering, *, compress: bool) -> None:
        self._host = host
        self._gathering = gathering
        self._compress = compress
        self._program: dict[str, str] = {}
        self._folder = ""
        self._lock = threading.Lock()
        self._users = 0
        self._closed = threading.Event()
        self._job: _Job | None = None

    def install(self, deadline: float) -> None:
        """Put our program on the machine, which proves that it can be reached.

        Raises HostKeyMismatch, AuthenticationError, or MachineUnreachable.
        """
        packed = bundle.program()
        with self._in_use():
            file = self._host.folder / "program"
            file.write_bytes(base64.b64encode(packed))
            try:
                told = self._ask("connect", {"agent_packed": str(file)}, deadline)
            except IN_STEP as error:
                raise MachineUnreachable(str(error)) from error
        self._folder = told["folder"]
        self._program = {
            "agent_program": told["program"],
            "agent_digest": hashlib.sha256(packed).hexdigest(),
        }

    def report(self) -> MachineReport:
        return MachineReport.parse(self._call("report"))

    def put(self, files: Sequence[InputFile]) -> None:
        pieces = archive.pack(files, compress=self._compress)
        variables = {"agent_request": _encoded({"op": "put", "gzip": self._compress})}
        with self._in_use():
            token = secrets.token_hex(8)
            whole = self._host.folder / f"archive-{token}"
            try:
                _write(whole, pieces)
                if whole.stat().st_size <= _AT_HAND:
                    variables["copy_in_data"] = base64.b64encode(whole.read_bytes()).decode()
                else:
                    variables["copy_in_archive"] = str(whole)
                    variables["copy_in_there"] = f"{self._folder}/archive-{token}"
                self._ask("copy_in", variables)
            finally:
                whole.unlink(missing_ok=True)

    def run(
        self,
        limits: RunLimits,
        on_output: OnOutput | None = None,
        artifacts: Artifacts = NO_ARTIFACTS,
    ) -> RunOutcome:
        job = _Job()
        request = {**asdict(limits), **kept.request(artifacts)}
        with self._in_use():
            self._job = job
            try:
                told = self._run(job, request, on_output)
            except IN_STEP:
                raise
            except BaseException:
                self._end(job)
                raise
            finally:
                self._job = None
            return kept.outcome(told, artifacts)

    def _run(
        self, job: _Job, request: Mapping[str, Any], on_output: OnOutput | None
    ) -> Mapping[str, Any]:
        live = on_output is not None
        variables = {
            "agent_request": _encoded({"op": "run", "live": live, **request}),
            "run_job": job.token,
        }

        def stopped() -> bool:
            return self._closed.is_set() or job.cancelled.is_set()

        outcome: Mapping[str, Any] | None = None
        with contextlib.closing(self._play("run", variables, stopped)) as told:
            for part in told:
                if on_output is not None and part["output"]:
                    on_output(base64.b64decode(part["output"]))
                if part["ended"]:
                    outcome = reply(part)
        if outcome is None:
            raise MachineUnreachable("the job was cancelled")
        return outcome

    def _end(self, job: _Job) -> None:
        """Stop the job on the machine, if the machine can still be asked."""
        deadline = time.monotonic() + _CANCEL_SECONDS
        variables = {"agent_words": ["cancel", job.token]}
        with contextlib.suppress(TangoCloudError):
            for _ in self._play("ask", variables, lambda: time.monotonic() > deadline):
                pass

    def cancel(self) -> None:
        job = self._job
        if job is not None:
            job.cancelled.set()

    def get(self, local: Path) -> None:
        with self._in_use(), self._file("get", local) as pieces:
            write_atomically(local, pieces)

    def collect(self, local: Path, limit_bytes: int) -> None:
        with self._in_use(), self._file("collect", local) as pieces:
            kept.unpack(pieces, local, limit_bytes)

    def peek(self, limit: int) -> bytes:
        with self._in_use(), self._data({"op": "peek", "limit": limit}) as pieces:
            return b"".join(pieces)

    @contextlib.contextmanager
    def _file(self, operation: str, local: Path) -> Iterator[Iterable[bytes]]:
        """What the agent answers with, for `local`."""
        with self._data({"op": operation, "gzip": self._compress}, local) as pieces:
            yield decompressed(pieces) if self._compress else pieces

    @contextlib.contextmanager
    def _data(
        self, request: Mapping[str, Any], output: Path | None = None
    ) -> Iterator[Iterable[bytes]]:
        """What the agent answers with, by way of a file of ours when it is much."""
        fetched = self._host.folder / f"data-{secrets.token_hex(8)}"
        variables = {"agent_request": _encoded(request), "copy_out_local": str(fetched)}
        try:
            told = self._ask("copy_out", variables, output=output)
            yield [base64.b64decode(told["data"])] if "data" in told else _read(fetched)
        finally:
            fetched.unlink(missing_ok=True)

    def stage_host_key(self) -> str:
        return str(self._call("stage_host_key")["public_key"])

    def activate_host_key(self) -> None:
        self._call("activate_host_key")

    @property
    def open(self) -> bool:
        """Until a call finds out otherwise: OpenSSH ends a connection that nobody uses."""
        return not self._closed.is_set()

    def alive(self) -> bool:
        try:
            self._call("ping")
        except TangoCloudError:
            return False
        return True

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            idle = self._users == 0
        if idle:
            self._host.close()

    def _call(self, operation: str) -> Mapping[str, Any]:
        variables = {"agent_words": ["call"], "agent_request": _encoded({"op": operation})}
        with self._in_use():
            return reply(self._ask("ask", variables))

    def _ask(
        self,
        playbook: str,
        variables: Mapping[str, Any],
        deadline: float = float("inf"),
        output: Path | None = None,
    ) -> dict[str, Any]:
        """The one answer that the playbook brings. Raises what `answers` raises."""

        def stopped() -> bool:
            return self._closed.is_set() or time.monotonic() > deadline

        for told in list(self._play(playbook, variables, stopped, output)):
            return told
        raise MachineUnreachable(
            "the session is closed"
            if self._closed.is_set()
            else "the machine did not answer in time"
        )

    def _play(
        self,
        playbook: str,
        variables: Mapping[str, Any],
        stopped: Callable[[], bool],
        output: Path | None = None,
    ) -> Generator[dict[str, Any], None, None]:
        given = {**self._host.variables, **self._program, **variables}
        with contextlib.closing(self._gathering.play(playbook, given, stopped)) as results:
            yield from answers(results, output)

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        """Keep the connection for a call, and close the session when that breaks.

        Raises MachineUnreachable when it is closed already.
        """
        with self._lock:
            if self._closed.is_set():
                raise MachineUnreachable("the session is closed")
            self._users += 1
        try:
            yield
        except IN_STEP:
            raise
        except BaseException:
            self._closed.set()
            raise
        finally:
            with self._lock:
                self._users -= 1
                last = self._closed.is_set() and self._users == 0
            if last:
                self._host.close()


@dataclass(frozen=True, slots=True)
class _Job:
    """A run, by the name that the machine knows it by."""

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    cancelled: threading.Event = field(default_factory=threading.Event)


def _encoded(request: Mapping[str, Any]) -> str:
    """Base64, so that nothing in it is a template to Ansible."""
    return base64.b64encode(json.dumps(dict(request)).encode()).decode()


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    try:
        with path.open("xb") as file:
            file.writelines(pieces)
    except OSError as error:
        raise InputError([Fault(str(path), error.strerror or str(error))]) from error


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(_CHUNK):
            yield part
