"""The boundary to a machine: copy in, run, copy out.

A `Transport` opens sessions; a `Session` is one machine held open. Both are safe to use from many
threads; the operations of one session's job (put, run, get) are one after another by nature.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, Self

from tango_cloud.core.model import Endpoint

OnOutput = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file for the job directory: `local` on this host, `destination` relative to the directory.

    `destination` uses forward slashes, may name sub-directories, and never leaves the directory.
    """

    local: Path
    destination: str


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What a job may use. Seconds, bytes and counts; None means no limit.

    `output_bytes` caps the output: the first and last halves are kept. `file_bytes` caps a single
    file, `disk_bytes` the job directory as a whole, `processes` what runs at once. `memory_bytes`
    caps each process' data, and at the levels "systemd" and "cgroup" also the memory of all
    together. `cpus` is how many processors' time the job may use; the other levels refuse it.
    """

    wall_seconds: float
    output_bytes: int | None = None
    file_bytes: int | None = None
    disk_bytes: int | None = None
    memory_bytes: int | None = None
    processes: int | None = None
    cpus: float | None = None
    network: bool = True


@dataclass(frozen=True, slots=True)
class Artifacts:
    """What is to be kept of a job's files, for `collect`.

    `paths` are files and directories, relative to the job directory as in `InputFile`, none within
    another; `limit_bytes` caps their content, all together.
    """

    paths: tuple[str, ...] = ()
    limit_bytes: int = 0


NO_ARTIFACTS = Artifacts()


class ArtifactStatus(StrEnum):
    """What became of an artifact."""

    FETCHED = "fetched"
    MISSING = "missing"
    """The job left nothing of that name."""
    TOO_LARGE = "too large"
    """It did not fit into what the artifacts before it left of the limit, held more than 10,000
    files, or the machine's disk was full."""
    UNUSABLE = "unusable"
    """It was neither a file nor a directory, behind a link, or could not be read."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact that was asked for. Unless it was fetched, nothing of it was.

    `files` and `bytes` are what it holds; `left_out` counts what a directory had besides: links,
    sockets, pipes, files that the job itself could not read, what lay more than 100 levels deep.
    """

    path: str
    status: ArtifactStatus
    files: int = 0
    bytes: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a job ended.

    `exit_status` is make's, as a shell reports it (128 + N for signal N); None when it was stopped
    for time or disk. `cpu_seconds` is the processor time of make and all that it started; what
    still ran when make ended by itself may be missing. `peak_memory_bytes` is the largest process',
    and not less than the agent's own, which every process begins as. At the levels "systemd" and
    "cgroup" nothing is missing, and the memory is that of all processes together, with what the
    kernel keeps of the files that they used. `output_bytes` counts before the middle was elided.
    `level` is the isolation that the machine gave: "systemd", "cgroup", "bubblewrap", "namespaces"
    or "limits". `artifacts` are those that were asked for, in that order.
    """

    exit_status: int | None
    timed_out: bool
    disk_exceeded: bool
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    output_bytes: int
    level: str
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineReport:
    """What a machine says of itself: for `doctor` and for results."""

    level: str
    separate_user: bool
    network_control: bool
    python: str
    missing: tuple[str, ...]
    """What stands in the way of a stronger level, in words."""

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Self:
        """As the agent tells it."""
        return cls(
            level=told["level"],
            separate_user=told["separate_user"],
            network_control=told["network_control"],
            python=told["python"],
            missing=tuple(told["missing"]),
        )


class Session(Protocol):
    """One machine, connected and verified. Raises MachineUnreachable from any method when the
    machine or the connection is gone; the session is closed then.
    """

    def report(self) -> MachineReport: ...

    def put(self, files: Sequence[InputFile]) -> None:
        """Empty the job directory and fill it with `files`, in order, with their modes.

        Raises InputError when a file cannot be read or a destination leaves the directory: nothing
        of this job is on the machine then. Raises MachineDamaged when the directory cannot be
        emptied, of the last job's files too.
        """
        ...

    def run(
        self,
        limits: RunLimits,
        on_output: OnOutput | None = None,
        artifacts: Artifacts = NO_ARTIFACTS,
    ) -> RunOutcome:
        """Run `make` in the job directory; return once nothing of it is left running. Its files are
        removed after that, but for a copy of the artifacts: the next request waits for it.

        `on_output` is called from the calling thread with output as it comes, at most
        `output_bytes` in all. Raises InputError for artifacts that cannot be asked for, JobRefused
        when the machine cannot give what `limits` asks, MachineDamaged when something of it cannot
        be killed.
        """
        ...

    def cancel(self) -> None:
        """Stop a `run` that another thread is in; that call then raises MachineUnreachable."""
        ...

    def get(self, local: Path) -> None:
        """Write the output of the last run to `local`, replaced atomically.

        The first line says how the driver saw the job end, or why it refused it; the output
        follows. Raises OutputError when this host cannot take it, MachineNotFound when no job has
        run.
        """
        ...

    def collect(self, local: Path, limit_bytes: int) -> None:
        """Put the artifacts of the last run into the directory `local`, which is replaced whole.

        They are regular files and directories, under the names they had, as this process would make
        them; whether a file may be executed is kept. Raises OutputError when this host cannot take
        them, or something that is no directory is in the way: all is as it was then.
        MachineNotFound when the last run was asked for none. MachineUnreachable for an archive of
        more than `limit_bytes`, or one that is none: the machine is not ours any more.
        """
        ...

    def peek(self, limit: int) -> bytes:
        """The first `limit` bytes of output so far, also while another session runs the job."""
        ...

    def stage_host_key(self) -> str:
        """Make a fresh host key on the machine, not yet in use; its public half is returned.

        Idempotent: staged already, the same key; activated already, the key in use.
        """
        ...

    def activate_host_key(self) -> None:
        """Let the SSH server answer with the staged key from now on. Idempotent."""
        ...

    @property
    def open(self) -> bool:
        """Whether the connection stands, for all that is known on this side."""
        ...

    def alive(self) -> bool:
        """Whether the machine answers right now (one round trip; False rather than an error)."""
        ...

    def close(self) -> None:
        """Close the connection. A job that runs on it is stopped by the machine. Idempotent."""
        ...


class Transport(Protocol):
    def listens(self, address: str, port: int, timeout: float) -> bool:
        """Whether somebody accepts connections there, tried for at most `timeout` seconds."""
        ...

    def connect(self, endpoint: Endpoint, timeout: float) -> Session:
        """Open a verified session within `timeout` seconds.

        Raises HostKeyMismatch, AuthenticationError, or MachineUnreachable.
        """
        ...


@dataclass(frozen=True, slots=True)
class Preparation:
    """How many tasks changed the machine, and how many did their work, the former included.

    `left_out`: what could not be had on this machine, in words.
    """

    changed: int
    ok: int
    left_out: tuple[str, ...] = ()


OnTask = Callable[[str], None]


class Preparer(Protocol):
    """Makes a machine what a playbook says, before an image is made of it."""

    def check(self, playbook: Path) -> None:
        """Whether it can be used at all; no machine is needed. Raises InputError."""
        ...

    def digest(self, playbook: Path | None) -> str:
        """SHA-256, in hexadecimal, of all that decides what a machine is prepared to. Raises
        InputError."""
        ...

    def prepare(
        self,
        endpoint: Endpoint,
        playbook: Path | None,
        *,
        on_task: OnTask | None = None,
        timeout: float,
        stop: threading.Event | None = None,
    ) -> Preparation:
        """Apply our roles to the machine, then the course's `playbook`, and verify what came of it.

        `on_task` is told the name of each task as it begins, from the calling thread. `timeout` is
        in seconds, for all of it. Raises PreparationFailed; HostKeyMismatch, AuthenticationError or
        MachineUnreachable when the machine could not be asked; Cancelled soon after `stop` is set.
        """
        ...

    def seal(
        self,
        endpoint: Endpoint,
        *,
        on_task: OnTask | None = None,
        timeout: float,
        stop: threading.Event | None = None,
    ) -> None:
        """Remove all that must not be in an image: nobody can connect any more, and the machine is
        of no use but to be baked. Raises as `prepare`."""
        ...
