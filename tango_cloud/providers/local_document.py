"""Instance documents of local machines, as the machine program writes them."""

from __future__ import annotations

import datetime as dt
import fcntl
import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from tango_cloud.core import tags
from tango_cloud.core.model import Instance, InstanceStatus, MachineKey

_STATUSES = {
    "pending": InstanceStatus.PENDING,
    "running": InstanceStatus.RUNNING,
    "stopping": InstanceStatus.STOPPING,
}


def read(deployment: str, document: Mapping[str, Any], instances: Path) -> Instance:
    """The machine of the document. `instances` is the folder of all machines' folders.

    Raises KeyError, TypeError or ValueError when the document lacks something.
    """
    machine_tags = document["tags"]
    name = machine_tags[tags.NAME]
    return Instance(
        instance_id=document["instance_id"],
        key=MachineKey(deployment, int(machine_tags[tags.ID]), tags.decode(name) or name),
        uid=document["uid"],
        wave=document["wave"],
        image=document["image"],
        status=_status(document, instances),
        address=document["address"],
        port=int(document["port"]),
        username=document["username"],
        zone=document["zone"],
        instance_type=document["instance_type"],
        created=dt.datetime.fromisoformat(document["created"]),
        expires=dt.datetime.fromisoformat(document["expires"]),
    )


def _status(document: Mapping[str, Any], instances: Path) -> InstanceStatus:
    pid = document["pid"]
    if pid is not None and not _runs(int(pid), document["pid_started"]):
        # Nobody lives in the folder any more; its supervisor is about to remove it.
        return InstanceStatus.GONE
    status = _STATUSES.get(document["status"], InstanceStatus.UNKNOWN)
    if status is InstanceStatus.STOPPING and not _is_held(instances / document["instance_id"]):
        return InstanceStatus.RUNNING  # who was to stop it was killed before that was done
    return status


def _is_held(folder: Path) -> bool:
    """Whether somebody starts or stops the machine of this folder just now, by its lock."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:  # moved away, its lock still held
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _runs(pid: int, token: object) -> bool:
    """Whether the process with this number is still the one that the machine program saw.

    On Linux `token` is the boot and the tick at which it started, the way that program writes it.
    """
    if sys.platform != "linux":
        return psutil.pid_exists(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # The program's name in brackets may hold anything: count the fields from its end.
    fields = stat.rpartition(b")")[2].split()
    return fields[0] not in {b"Z", b"X"} and token == f"{_boot_id()}:{fields[19].decode()}"


@functools.cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
