"""A strict extractor for the one kind of tar stream that our own archives are.

GNU format; regular files and directories only, each below the job directory, none twice. Anything
else is refused, whatever a more helpful tar would have made of it.
"""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from tango_cloud.machine.frames import ReadSome, StreamBroken, read_exactly

BLOCK = 512
_CHUNK = 1 << 18
_MAX_NAME = 1 << 12
_MAGIC = b"ustar  \0"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class ArchiveRefused(Exception):
    """The stream holds something that our archive never writes."""


def extract(read: ReadSome, top: int) -> int:
    """Unpack the archive that `read` gives into the directory open as `top`; return the count.

    Files get the modes that the archive gives them, directories made on the way 0755. Raises
    ArchiveRefused, StreamBroken when the stream ends early, OSError when the disk is full.
    """
    count = 0
    folders = OpenFolders(top)
    # So that what is made has its final mode at once: a call less for each file. No other user can
    # walk into the job directory, and the files worker has one thread.
    umask = os.umask(0)
    try:
        while (entry := next_entry(read)) is not None:
            if entry.is_directory:
                folders.open(entry.path)
            else:
                write_file(read, folders, entry, entry.mode)
            count += 1
        return count
    finally:
        os.umask(umask)
        folders.close()


class Entry(NamedTuple):
    """A file or a directory; `size` bytes of content follow. No part of its `path` leads out."""

    path: tuple[bytes, ...]
    is_directory: bool
    size: int
    mode: int


def next_entry(read: ReadSome) -> Entry | None:
    """The archive's next entry; None at its end. Raises ArchiveRefused, StreamBroken."""
    header = read_exactly(read, BLOCK)
    if not any(header):
        return None
    kind, name, size, mode = _parse(header)
    if kind == b"L":
        name = _long_name(read, size)
        kind, _, size, mode = _parse(read_exactly(read, BLOCK))
    if kind not in (b"0", b"5"):
        raise ArchiveRefused(f"{name!r} is an entry of type {kind!r}")
    return Entry(_parts(name), kind == b"5", size, mode)


def _parse(header: bytes) -> tuple[bytes, bytes, int, int]:
    """An entry's kind, name, size and mode."""
    if header[257:265] != _MAGIC:
        raise ArchiveRefused("not an archive of ours")
    checksum = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    if _number(header[148:156]) != checksum:
        raise ArchiveRefused("an entry's checksum is wrong")
    return (
        header[156:157],
        header[:100].partition(b"\0")[0],
        _number(header[124:136]),
        _number(header[100:108]) & 0o777,
    )


def _number(field: bytes) -> int:
    """Octal digits, or (from 8 GiB on) a binary number marked by its first byte."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.rstrip(b" \0") or b"0", 8)
    except ValueError:
        raise ArchiveRefused(f"{field!r} is not a number") from None


def _long_name(read: ReadSome, size: int) -> bytes:
    if not 0 < size <= _MAX_NAME:
        raise ArchiveRefused(f"a name of {size} bytes")
    padded = read_exactly(read, size + -size % BLOCK)
    return padded[:size].rstrip(b"\0")


def _parts(name: bytes) -> tuple[bytes, ...]:
    parts = tuple(name.rstrip(b"/").split(b"/"))
    if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
        raise ArchiveRefused(f"{name!r} is not a path below the job directory")
    return parts


def write_file(read: ReadSome, folders: OpenFolders, entry: Entry, mode: int) -> None:
    """Make the file, of that mode as far as the umask lets it. Raises as `extract`."""
    folder, name = folders.open(entry.path[:-1]), entry.path[-1]
    try:
        file = os.open(name, _NEW_FILE, mode, dir_fd=folder)
    except FileExistsError:
        raise ArchiveRefused(f"{name!r} comes twice") from None
    try:
        missing = entry.size
        while missing:
            part = read(min(missing, _CHUNK))
            if not part:
                raise StreamBroken("the archive ended within a file")
            missing -= len(part)
            _write(file, part)
    finally:
        os.close(file)
    read_exactly(read, -entry.size % BLOCK)


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


class OpenFolders:
    """Opens directories below the top, making those that are missing.

    Keeps the last one open: files mostly come folder by folder.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._parts: tuple[bytes, ...] = ()
        self._last: int | None = None

    def open(self, parts: tuple[bytes, ...]) -> int:
        if not parts:
            return self._top
        if self._last is not None and parts == self._parts:
            return self._last
        self.close()
        folder = self._top
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=folder)
            try:
                inner = os.open(part, _DIRECTORY, dir_fd=folder)
            except OSError as error:
                raise ArchiveRefused(f"{part!r} is not a directory: {error.strerror}") from error
            finally:
                if folder != self._top:
                    os.close(folder)
            folder = inner
        self._parts, self._last = parts, folder
        return folder

    def close(self) -> None:
        if self._last is not None:
            os.close(self._last)
            self._last = None
