"""A job: a directory with a Makefile, and how it went."""

from __future__ import annotations

import datetime as dt
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tango_cloud.core.errors import Fault, InputError
from tango_cloud.transports.protocol import (
    NO_ARTIFACTS,
    Artifact,
    Artifacts,
    InputFile,
    RunLimits,
)

_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")


@dataclass(frozen=True, slots=True)
class Job:
    """What to run: the files for the job directory, what they may use, and what to fetch of what
    they make.

    `transport` names what carries it; None: the deployment's own.
    """

    name: str
    files: tuple[InputFile, ...]
    limits: RunLimits
    artifacts: Artifacts = NO_ARTIFACTS
    transport: str | None = None


class JobStatus(StrEnum):
    """How a job ended, from its user's point of view."""

    PASSED = "passed"
    """make ended with status 0."""
    FAILED = "failed"
    """make ended with another status, or was killed by a signal."""
    TIMED_OUT = "timed out"
    DISK_FULL = "disk limit"
    """It wrote more than it may."""
    ERROR = "error"
    """It could not be run: a fault of the machine, the settings, or this host."""
    CANCELLED = "cancelled"


class DriverStatus(StrEnum):
    """How the driver saw a job end."""

    EXITED = "exited"
    """make ended by itself, with whatever status."""
    TIMED_OUT = "timed out"
    DISK_FULL = "disk limit"
    REFUSED = "refused"
    """The machine cannot give what the job asks for."""
    DAMAGED = "damaged"
    """Something of a job could not be killed or removed."""


@dataclass(frozen=True, slots=True)
class StepTimes:
    """When each step of a job was done, by this host's clock, in UTC; None: it never was.

    `asked`: the job was handed in; `ready`: its machine was; `ran`: nothing of the job was left
    running. A job that was tried on two machines has the times of the second; one that could not be
    run has those up to `ready`.
    """

    asked: dt.datetime | None = None
    ready: dt.datetime | None = None
    copied_in: dt.datetime | None = None
    ran: dt.datetime | None = None
    copied_out: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job went. `seconds` is the wall time of make; `output` the file that holds its output
    (None when there is none). `artifacts` tells what became of each that was asked for; those that
    came are in the directory `artifacts_dir` (None when none were asked for). `detail` explains an
    error. `driver_status` is None when the driver never told. `machine` is the instance name,
    `machine_uid` its unique name within all time, `instance_id` the cloud's. What `cpu_seconds` and
    `peak_memory_bytes` count is told in `RunOutcome`.
    """

    job: str
    status: JobStatus
    driver_status: DriverStatus | None = None
    exit_status: int | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    output_bytes: int = 0
    output: Path | None = None
    artifacts: tuple[Artifact, ...] = ()
    artifacts_dir: Path | None = None
    machine: str = ""
    machine_uid: str = ""
    instance_id: str = ""
    level: str = ""
    detail: str = ""
    times: StepTimes = StepTimes()


def load_directory(directory: Path) -> Sequence[InputFile]:
    """Every file below `directory`, named relative to it.

    Symbolic links are followed as long as they stay inside the directory. Raises InputError with
    everything that cannot be used: no Makefile, links that lead out or nowhere, sockets, pipes and
    devices, unreadable files.
    """
    if not directory.is_dir():
        raise InputError([Fault(str(directory), "not a directory", "a directory with a Makefile")])
    root = directory.resolve()
    files: list[InputFile] = []
    faults: list[Fault] = []
    for path in _walk(root, faults):
        fault = _examine(path, root)
        if fault is not None:
            faults.append(fault)
        else:
            files.append(InputFile(path.resolve(), path.relative_to(root).as_posix()))
    if not any(file.destination in _MAKEFILES for file in files):
        faults.append(Fault(str(directory), "no Makefile", "a Makefile, which the job runs"))
    if faults:
        raise InputError(faults)
    return files


def _walk(root: Path, faults: list[Fault]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        faults.append(Fault(str(error.filename), error.strerror or "unreadable"))

    for folder, folders, names in os.walk(root, onerror=unreadable):
        folders.sort()
        # A link to a directory could lead in circles: it is examined as what it is, not walked.
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in sorted([*names, *links]):
            yield Path(folder, name)


def _examine(path: Path, root: Path) -> Fault | None:
    """What is wrong with `path` as an input file; None when nothing is."""
    try:
        target = path.resolve(strict=True)
        mode = target.stat().st_mode
    except (OSError, RuntimeError) as error:
        return Fault(str(path), f"cannot be followed: {error}", "a file inside the job directory")
    if not target.is_relative_to(root):
        return Fault(str(path), f"leads out of the job directory, to {target}")
    if not stat.S_ISREG(mode):
        kind = "a link to a directory" if stat.S_ISDIR(mode) else "a socket, pipe or device"
        return Fault(str(path), f"is {kind}", "a regular file")
    if not os.access(target, os.R_OK):
        return Fault(str(path), "may not be read", "a readable file")
    return None
