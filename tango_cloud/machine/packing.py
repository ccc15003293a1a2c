"""Packing the artifacts of a job: an archive that `extract` takes, written by the job's own user.

The directory is as a hostile job left it. No link is followed, nothing but regular files and
directories is taken, and how much is looked at is bounded, whatever is there.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Sequence
from typing import NamedTuple

from tango_cloud.machine.extract import BLOCK

FETCHED = "fetched"
MISSING = "missing"
TOO_LARGE = "too large"
UNUSABLE = "unusable"
"""There is something, but neither a file nor a directory; or behind a link; or it may not be
read."""

MAX_ENTRIES = 10_000
"""Files and directories of one job: more than that is looked at by no one."""
MAX_DEPTH = 100
MAX_PATH = 3072
"""Bytes of a path, below the job directory."""

_CHUNK = 1 << 18
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: what was a file a moment ago may be a FIFO that nobody writes to.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Packed(NamedTuple):
    """What became of one artifact. `left_out` counts what lies in a directory and could not be
    taken: links, FIFOs, files that may not be read."""

    status: str
    files: int = 0
    size: int = 0
    left_out: int = 0


class _TooLarge(Exception):
    """The artifact does not fit into what is left of the limit."""


def pack(top: int, paths: Sequence[str], limit: int, sink: int) -> list[Packed]:
    """Write the artifacts `paths` of the directory open as `top` to the file open as `sink`; what
    became of each.

    Each is taken whole or not at all, in the order given, until `limit` bytes of content or
    MAX_ENTRIES are reached; one that does not fit leaves its room to the next.
    """
    told = []
    room, entries = limit, MAX_ENTRIES
    for path in paths:
        taking = _Taking(sink, room, entries)
        packed = taking.take(top, tuple(path.split("/")))
        if packed.status == FETCHED:
            room, entries = taking.room, taking.entries
        told.append(packed)
    _write(sink, bytes(2 * BLOCK))
    return told


class _Taking:
    """One artifact on its way into the archive. `room` and `entries` are what is left."""

    def __init__(self, sink: int, room: int, entries: int) -> None:
        self._sink = sink
        self.room = room
        self.entries = entries
        self._files = 0
        self._size = 0
        self._left_out = 0

    def take(self, top: int, path: tuple[str, ...]) -> Packed:
        """Take it whole, or leave the archive as it was. Raises OSError when it cannot be."""
        start = os.lseek(self._sink, 0, os.SEEK_CUR)
        status = self._try(top, path)
        if status == FETCHED:
            return Packed(status, self._files, self._size, self._left_out)
        self._rewind(start)
        return Packed(status)

    def _try(self, top: int, path: tuple[str, ...]) -> str:
        folder = os.dup(top)
        try:
            for part in path[:-1]:
                inner = os.open(part, _DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = inner
            mode = os.stat(path[-1], dir_fd=folder, follow_symlinks=False).st_mode
            taken = self._entry(folder, path, stat.S_ISDIR(mode), stat.S_ISREG(mode))
        except FileNotFoundError:
            return MISSING
        except _TooLarge:
            return TOO_LARGE
        except OSError as error:
            return TOO_LARGE if error.errno in _NO_ROOM else UNUSABLE
        finally:
            os.close(folder)
        return FETCHED if taken else UNUSABLE

    def _entry(self, folder: int, path: tuple[str, ...], is_directory: bool, is_file: bool) -> bool:
        """Take what is called by the last part of `path` in `folder`; False when it cannot be."""
        if len(path) > MAX_DEPTH or len(os.fsencode("/".join(path))) > MAX_PATH:
            return False
        if not is_directory and not is_file:
            return False
        try:
            opened = os.open(path[-1], _DIRECTORY if is_directory else _FILE, dir_fd=folder)
        except OSError:
            return False
        try:
            if is_directory:
                self._directory(opened, path)
                return True
            return self._file(opened, path)
        finally:
            os.close(opened)

    def _directory(self, directory: int, path: tuple[str, ...]) -> None:
        self._count()
        self._header(path, tarfile.DIRTYPE, 0, 0o755)
        children: list[tuple[str, bool, bool]] = []
        with os.scandir(directory) as scan:
            for entry in scan:
                if len(children) >= self.entries:
                    raise _TooLarge
                is_directory = entry.is_dir(follow_symlinks=False)
                children.append((entry.name, is_directory, entry.is_file(follow_symlinks=False)))
        for name, is_directory, is_file in sorted(children):
            if not self._entry(directory, (*path, name), is_directory, is_file):
                self._count()
                self._left_out += 1

    def _file(self, file: int, path: tuple[str, ...]) -> bool:
        """False when it is no regular file any more, or shorter than it said."""
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return False
        if status.st_size > self.room:
            raise _TooLarge
        start = os.lseek(self._sink, 0, os.SEEK_CUR)
        self._header(
            path, tarfile.REGTYPE, status.st_size, 0o755 if status.st_mode & 0o100 else 0o644
        )
        missing = status.st_size
        while missing and (part := os.read(file, min(missing, _CHUNK))):
            missing -= len(part)
            _write(self._sink, part)
        if missing:
            self._rewind(start)
            return False
        _write(self._sink, bytes(-status.st_size % BLOCK))
        self._count()
        self._files += 1
        self._size += status.st_size
        self.room -= status.st_size
        return True

    def _count(self) -> None:
        if not self.entries:
            raise _TooLarge
        self.entries -= 1

    def _header(self, path: tuple[str, ...], kind: bytes, size: int, mode: int) -> None:
        info = tarfile.TarInfo("/".join(path))
        info.type, info.size, info.mode = kind, size, mode
        _write(self._sink, info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))

    def _rewind(self, start: int) -> None:
        os.ftruncate(self._sink, start)
        os.lseek(self._sink, start, os.SEEK_SET)


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]
