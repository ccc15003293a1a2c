"""A job's artifacts on our side: what the machine tells of them, and the archive that it sends.

A job may have taken its machine over: the archive is checked as if the job had written it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tango_cloud.core.errors import Fault, InputError, MachineUnreachable, OutputError
from tango_cloud.machine.extract import (
    BLOCK,
    ArchiveRefused,
    Entry,
    OpenFolders,
    next_entry,
    write_file,
)
from tango_cloud.machine.frames import ReadSome, StreamBroken, read_exactly
from tango_cloud.machine.packing import MAX_DEPTH, MAX_ENTRIES, MAX_PATH
from tango_cloud.transports.archive import path_problem
from tango_cloud.transports.protocol import Artifact, Artifacts, ArtifactStatus, RunOutcome

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_PATHS = 1000
_HEADER_BYTES = MAX_PATH + 4 * BLOCK
"""The most that an entry has besides its content."""


def check(asked: Artifacts) -> None:
    """Raises InputError with everything that is wrong: paths that leave the job directory, come
    twice, lie within one another, or are too many; a limit that lets nothing through."""
    faults = [
        Fault(repr(path), problem, "a path below the job directory")
        for path in asked.paths
        if (problem := path_problem(path))
    ]
    times = Counter(asked.paths)
    faults += [Fault(repr(path), "is asked for twice") for path, n in times.items() if n > 1]
    faults += [
        Fault(repr(path), f"lies in {str(parent)!r}, which is asked for too")
        for path in times
        for parent in PurePosixPath(path).parents
        if str(parent) in times
    ]
    if len(times) > _MAX_PATHS:
        faults.append(Fault("artifacts", f"{len(times)} are too many", f"at most {_MAX_PATHS}"))
    if asked.paths and asked.limit_bytes <= 0:
        told = f"{asked.limit_bytes} will not do"
        faults.append(Fault("artifact limit", told, "bytes, greater than 0"))
    if faults:
        raise InputError(faults)


def request(asked: Artifacts) -> dict[str, Any]:
    """What the request to run a job says of them. Raises InputError."""
    if not asked.paths:
        return {}
    check(asked)
    return {"artifacts": asked.paths, "artifact_bytes": asked.limit_bytes}


def outcome(told: Mapping[str, Any], asked: Artifacts) -> RunOutcome:
    """A job's outcome as the machine tells it. Raises MachineUnreachable when it tells nonsense."""
    try:
        became = [
            Artifact(path, ArtifactStatus(status), *counts)
            for path, (status, *counts) in zip(asked.paths, told.get("artifacts", ()), strict=True)
        ]
        return RunOutcome(**{**told, "artifacts": tuple(became)})
    except (TypeError, ValueError) as error:
        raise MachineUnreachable(f"the machine told no outcome of the job: {error}") from error


def unpack(pieces: Iterable[bytes], local: Path, limit_bytes: int) -> None:
    """Unpack the archive in a directory beside `local`, then put that in its place.

    Raises as `Session.collect`. After an OutputError all pieces have been taken.
    """
    fresh = local.with_name(f".{local.name[:100]}.{secrets.token_hex(8)}")
    rest = iter(pieces)
    try:
        try:
            fresh.mkdir()
            top = os.open(fresh, _DIRECTORY)
            try:
                _unpack(_reader(rest), top, limit_bytes)
            finally:
                os.close(top)
            _replace(local, fresh)
        except OSError as error:
            _drain(rest, limit_bytes)
            raise OutputError(local, error.strerror or str(error)) from error
        except (ArchiveRefused, StreamBroken) as error:
            raise MachineUnreachable(
                f"the machine sent artifacts that are none: {error}"
            ) from error
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _unpack(read: ReadSome, top: int, room: int) -> None:
    entries = MAX_ENTRIES
    with contextlib.closing(OpenFolders(top)) as folders:
        while (entry := next_entry(read)) is not None:
            entries -= 1
            room -= entry.size
            if room < 0 or entries < 0 or len(entry.path) > MAX_DEPTH:
                raise ArchiveRefused("it holds more than was asked for")
            if entry.is_directory:
                folders.open(entry.path)
            else:
                write_file(read, folders, entry, _mode(entry))
    if any(read_exactly(read, BLOCK)) or read(1):
        raise ArchiveRefused("something follows its end")


def _mode(entry: Entry) -> int:
    """For the umask to take from, as when a compiler makes a file."""
    return 0o777 if entry.mode & 0o100 else 0o666


def _replace(local: Path, fresh: Path) -> None:
    """Put `fresh` where `local` is. Raises OSError when something that is no directory is there."""
    old = fresh.with_name(f"{fresh.name}.old")
    if local.is_symlink() or (local.exists() and not local.is_dir()):
        raise NotADirectoryError(f"{local.name} is in the way and not a directory")
    with contextlib.suppress(FileNotFoundError):
        local.rename(old)
    fresh.rename(local)
    shutil.rmtree(old, ignore_errors=True)


def _reader(pieces: Iterator[bytes]) -> ReadSome:
    rest = memoryview(b"")

    def read(limit: int) -> bytes:
        nonlocal rest
        while not rest:
            piece = next(pieces, None)
            if piece is None:
                return b""
            rest = memoryview(piece)
        part = bytes(rest[:limit])
        rest = rest[limit:]
        return part

    return read


def _drain(pieces: Iterator[bytes], limit_bytes: int) -> None:
    """Take the rest, so that the connection can be used on. Raises MachineUnreachable when there is
    no end to it."""
    room = limit_bytes + MAX_ENTRIES * _HEADER_BYTES
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            raise MachineUnreachable("the machine sends more artifacts than were asked for")
