"""What local machines may leave behind: folders, and processes that nobody waits for."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil

from tango_cloud.core.model import Instance, InstanceStatus
from tango_cloud.providers.protocol import Stray

_HALF_MADE = ".new-"
"""Before the id of a machine whose folder is being made."""


def find(root: Path, instances: Iterable[Instance]) -> Sequence[Stray]:
    """The folders of those machines that died together with their supervisors, as in a reboot. And
    what does not tell whose it is: folders that were being made or removed then, and processes of
    machines that have no folder any more. `root` is the folder that is the cloud."""
    dead = [
        Stray(instance.instance_id, "folder", instance.created)
        for instance in instances
        if instance.status is InstanceStatus.GONE
    ]
    return [*dead, *_halfway(root), *_left_behind(root / "instances")]


def _halfway(root: Path) -> Iterator[Stray]:
    found = [
        (folder, folder.name.removeprefix(_HALF_MADE), "half-made folder")
        for folder in (root / "instances").glob(f"{_HALF_MADE}i-*")
    ]
    found += [
        (folder, folder.name.rpartition("-")[0], "half-removed folder")
        for folder in (root / "removing").glob("i-*")
    ]
    for folder, instance_id, kind in found:
        with contextlib.suppress(FileNotFoundError):  # made, or removed, by now
            changed = dt.datetime.fromtimestamp(folder.stat().st_mtime, dt.UTC)
            yield Stray(instance_id, kind, changed)


def _left_behind(instances: Path) -> Iterator[Stray]:
    """What bwrap leaves when it is killed while it starts, and its supervisor too: known as the
    machine program's `kill_left_behind` knows it."""
    named = re.compile(re.escape(str(instances)) + "/(i-[0-9a-f]+)/")
    for process in psutil.process_iter(["name"]):
        if process.info["name"] != "bwrap":
            continue
        with contextlib.suppress(psutil.Error):
            found = named.search(" ".join(process.cmdline()))
            if found is None:
                continue
            folders = (instances / found[1], instances / f"{_HALF_MADE}{found[1]}")
            if not any(folder.exists() for folder in folders):
                began = dt.datetime.fromtimestamp(process.create_time(), dt.UTC)
                yield Stray(found[1], "process", began)
