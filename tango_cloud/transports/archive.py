"""A job's files as one tar stream, straight from disk: checked first, then read as it is sent.

The stream is what `tango_cloud.machine.extract` takes: GNU tar, regular files only. No file is ever
held in memory. All that is wrong with the files is found before the first byte and told in one go.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tango_cloud.core.errors import Fault, InputError
from tango_cloud.transports.protocol import InputFile
from tango_cloud.transports.streams import compressed

CHUNK = 1 << 18
"""Bytes read from a file at a time."""

MAX_NAME = 255
"""Bytes of one name in a path, on every usual file system."""
MAX_PATH = 3072
"""Bytes of a whole destination: Linux' 4096 less room for where the job directory is."""

_BLOCK = 512
_SHORT_NAME = 100
"""Bytes of a name that fits into a header."""
_OCTAL_SIZE = 8**11
"""From this size on a header holds it as a binary number."""
# Mode and owner, size and time, checksum, type, link, magic, then names that we leave empty.
_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s247x")
# Not blocking: to open a FIFO that nobody writes to would wait for ever.
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class Entry(NamedTuple):
    """A file that passed the checks. `size` is in bytes, as it was then."""

    source: Path
    destination: str
    size: int
    mode: int


def pack(files: Sequence[InputFile], *, compress: bool) -> Iterable[bytes]:
    """The stream as it goes to a machine. Raises as `check`, at once, and then as `stream`."""
    pieces = stream(check(files))
    return compressed(pieces) if compress else pieces


def check(files: Sequence[InputFile]) -> list[Entry]:
    """The entries to send, in the order given.

    Symbolic links are followed: which of them may be used is decided where the job is read, not
    here. What can be opened is sent (so for root also a file of mode 0000). The file's own mode is
    kept, the right to read it added for the job.

    Raises InputError with every fault found: files that are missing, unreadable or no regular
    files; destinations that leave the job directory, are too long, come twice, or are a file and a
    directory at once.
    """
    faults: list[Fault] = []
    entries: list[Entry] = []
    for file in files:
        problem = path_problem(file.destination)
        if problem:
            faults.append(Fault(repr(file.destination), problem, "a path below the job directory"))
        try:
            status = _inspect(file.local)
        except (OSError, ValueError) as error:
            faults.append(Fault(str(file.local), _reason(error), "a readable regular file"))
            continue
        mode = stat.S_IMODE(status.st_mode) & 0o777 | 0o400
        entries.append(Entry(file.local, file.destination, status.st_size, mode))
    faults += _conflicts([file.destination for file in files])
    if faults:
        raise InputError(faults)
    return entries


def stream(entries: Sequence[Entry]) -> Iterator[bytes]:
    """The archive, piece by piece.

    A file that has grown since it was checked is sent as long as it was. Raises InputError when one
    has shrunk, vanished or become something else: what was sent until then is to be thrown away.
    """
    for entry in entries:
        yield _header(entry)
        yield from _content(entry)
        yield bytes(-entry.size % _BLOCK)
    yield bytes(2 * _BLOCK)


def _inspect(path: Path) -> os.stat_result:
    """The file's status. Raises OSError when it cannot be opened or is no regular file.

    It is looked at before it is opened, because opening a device can have effects, and afterwards
    again, in case it was replaced in between.
    """
    _require_regular(path.stat().st_mode)
    file = os.open(path, _OPEN)
    try:
        status = os.fstat(file)
        _require_regular(status.st_mode)
        return status
    finally:
        os.close(file)


def _require_regular(mode: int) -> None:
    kinds = {
        stat.S_IFDIR: "is a directory",
        stat.S_IFIFO: "is a FIFO",
        stat.S_IFSOCK: "is a socket",
        stat.S_IFCHR: "is a device",
        stat.S_IFBLK: "is a device",
    }
    if not stat.S_ISREG(mode):
        raise ValueError(kinds.get(stat.S_IFMT(mode), "is no regular file"))


def _content(entry: Entry) -> Iterator[bytes]:
    try:
        file = os.open(entry.source, _OPEN)
        try:
            _require_regular(os.fstat(file).st_mode)
            missing = entry.size
            while missing and (part := os.read(file, min(missing, CHUNK))):
                missing -= len(part)
                yield part
        finally:
            os.close(file)
    except (OSError, ValueError) as error:
        raise InputError([Fault(str(entry.source), _reason(error))]) from error
    if missing:
        problem = f"shrank by {missing} bytes while it was being sent"
        raise InputError([Fault(str(entry.source), problem)])


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _header(entry: Entry) -> bytes:
    """As tarfile makes it, which takes ten times as long: for small files, most of a copy-in."""
    name = entry.destination.encode("utf-8", "surrogateescape")
    if len(name) > _SHORT_NAME or entry.size >= _OCTAL_SIZE:
        return _long_header(entry)
    fields = (
        *(name, b"%07o" % entry.mode, b"0000000", b"0000000"),
        *(b"%011o" % entry.size, b"00000000000"),
    )
    # The sum is over all bytes, those of the sum itself taken as blanks.
    blank = _FIELDS.pack(*fields, b" " * 8, tarfile.REGTYPE, b"", tarfile.GNU_MAGIC)
    return _FIELDS.pack(*fields, b"%06o\0 " % sum(blank), tarfile.REGTYPE, b"", tarfile.GNU_MAGIC)


def _long_header(entry: Entry) -> bytes:
    info = tarfile.TarInfo(entry.destination)
    info.size = entry.size
    info.mode = entry.mode
    # Owner and time stay at their defaults, which the machine does not look at: the files are its
    # job user's, and as old as their arrival, the first one the oldest.
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def path_problem(destination: str) -> str:
    """What is wrong with a path in the job directory by itself, in words; empty when nothing is."""
    parts = destination.split("/")
    encoded = b""
    with contextlib.suppress(UnicodeEncodeError):
        encoded = os.fsencode(destination)
    checks = (
        (not destination, "is empty"),
        (destination.startswith("/"), "is an absolute path"),
        (".." in parts, "leaves the job directory"),
        ("" in parts or "." in parts, "has an empty or '.' component"),
        ("\0" in destination, "holds a NUL character"),
        (bool(destination) and not encoded, "cannot be spelt as a file name"),
        (len(encoded) > MAX_PATH, f"is longer than {MAX_PATH} bytes"),
        (
            any(len(part) > MAX_NAME for part in encoded.split(b"/")),
            f"has a component longer than {MAX_NAME} bytes",
        ),
    )
    return next((problem for wrong, problem in checks if wrong), "")


def _conflicts(destinations: Sequence[str]) -> list[Fault]:
    """Destinations that cannot all exist: twice the same, or a file that is another's directory."""
    faults = []
    seen: set[str] = set()
    for destination in destinations:
        if destination in seen:
            faults.append(Fault(repr(destination), "is the destination of two files"))
        seen.add(destination)
    folders = {
        "/".join(parts[:depth])
        for parts in (destination.split("/") for destination in seen)
        for depth in range(1, len(parts))
    }
    faults += [
        Fault(repr(destination), "is a file and another file's directory")
        for destination in sorted(seen & folders)
        if destination
    ]
    return faults
