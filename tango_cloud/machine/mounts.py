"""What a job sees of the machine's files: one table, from which each level makes its own mounts."""

from __future__ import annotations

import os
from typing import NamedTuple

from tango_cloud.machine.folders import Folders

READ_ONLY = "read-only"
WRITABLE = "writable"
LINK = "link"
EMPTY = "empty"

JOB = "/job"
TMP = "/tmp"  # noqa: S108 - the job's own, mounted there
SHM = "/dev/shm"  # noqa: S108

_COURSE = "/course"
"""What the playbook of an image has for the jobs of a course, where it needs a place of its own."""
_SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix", _COURSE,
)  # fmt: skip
_RESOLVER = "/run/systemd/resolve"
"""Where /etc/resolv.conf points to on machines with systemd-resolved."""


class Mount(NamedTuple):
    """One line of the table. `source` is the machine's path, for LINK the link's text."""

    kind: str
    source: str
    target: str


def system() -> list[Mount]:
    """The system's directories, read-only; those that are links stay links."""
    table = []
    for path in _SYSTEM:
        if os.path.islink(path):
            table.append(Mount(LINK, os.readlink(path), path))
        elif os.path.isdir(path):
            table.append(Mount(READ_ONLY, path, path))
    if os.path.isdir(_RESOLVER):
        table.append(Mount(READ_ONLY, _RESOLVER, _RESOLVER))
    return table


def own(folders: Folders) -> list[Mount]:
    """The job's own directories, and a cover over ours where a system directory holds them.

    /tmp and /dev/shm are the job's directories on disk rather than memory file systems: so what a
    job puts there counts against its disk limit, and cannot use up the machine's memory.
    """
    inside = any(folders.work_dir.startswith(path + "/") for path in _SYSTEM)
    return [
        *([Mount(EMPTY, "", folders.work_dir)] if inside else []),
        Mount(WRITABLE, folders.job, JOB),
        Mount(WRITABLE, folders.tmp, TMP),
        Mount(LINK, TMP, "/var/tmp"),  # noqa: S108
        Mount(WRITABLE, folders.shm, SHM),
    ]
