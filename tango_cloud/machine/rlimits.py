"""A job's resource limits, and what each level does to bring them into force."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from typing import Any, NamedTuple

from tango_cloud.machine.failures import REFUSED, Failure

OPEN_FILES = 4096
_NAMES = {
    resource.RLIMIT_CORE: "core",
    resource.RLIMIT_NOFILE: "nofile",
    resource.RLIMIT_FSIZE: "fsize",
    resource.RLIMIT_DATA: "data",
    resource.RLIMIT_NPROC: "nproc",
}


class Limits(NamedTuple):
    """What was asked for: seconds, bytes and counts; None means no limit."""

    wall_seconds: float
    output_bytes: int | None
    file_bytes: int | None
    disk_bytes: int | None
    memory_bytes: int | None
    processes: int | None
    cpus: float | None
    network: bool

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Limits:
        """Raises Failure (refused), naming the value that makes no sense."""
        wall = told.get("wall_seconds")
        if not isinstance(wall, (int, float)) or isinstance(wall, bool) or not 0 < wall < 1e9:
            raise Failure(REFUSED, f"wall_seconds is {wall!r}, not a positive number of seconds")
        cpus = told.get("cpus")
        if cpus is not None and (not isinstance(cpus, (int, float)) or not 0.01 <= cpus < 1e6):
            raise Failure(REFUSED, f"cpus is {cpus!r}, not a number of processors or null")
        counts = {}
        for name in ("output_bytes", "file_bytes", "disk_bytes", "memory_bytes", "processes"):
            value = told.get(name)
            if value is not None and (not isinstance(value, int) or value < 0):
                raise Failure(REFUSED, f"{name} is {value!r}, not a count or null")
            counts[name] = value
        network = bool(told.get("network", True))
        return cls(wall_seconds=float(wall), cpus=cpus, network=network, **counts)


def rlimits(limits: Limits, already_running: int) -> dict[int, int]:
    """The resource limits, by number.

    `already_running` is how many processes count against the job's limit before it starts: none in
    a user namespace of its own (Linux 5.14), else all of the job's user.

    Memory is RLIMIT_DATA (private memory that can be written), not RLIMIT_AS: runtimes like Go's
    and Java's, and the address sanitizer, reserve far more address space than they ever use.
    """
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_DATA: limits.memory_bytes,
        resource.RLIMIT_NPROC: (
            None if limits.processes is None else limits.processes + already_running
        ),
    }
    return {
        number: _within_hard_limit(number, value)
        for number, value in wanted.items()
        if value is not None
    }


def apply(wanted: Mapping[int, int]) -> None:
    """Set them for this process and all it starts. Raises OSError or ValueError."""
    for number, value in wanted.items():
        resource.setrlimit(number, (value, value))


def prlimit_words(wanted: Mapping[int, int]) -> list[str]:
    """The same as arguments of prlimit(1)."""
    return [f"--{_NAMES[number]}={value}:{value}" for number, value in wanted.items()]


def running(uid: int) -> int:
    """How many tasks (threads count) user `uid` has now, as RLIMIT_NPROC counts them."""
    count = 0
    try:
        names = os.listdir("/proc")
    except OSError:
        return 0
    for name in names:
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count


def _within_hard_limit(number: int, value: int) -> int:
    hard = resource.getrlimit(number)[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)
