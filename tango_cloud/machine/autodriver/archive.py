"""A directory as the one kind of tar stream that `extract` takes."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator

_CHUNK = 1 << 18


def stream(top: str) -> Iterator[bytes]:
    """The archive of all that is below `top`, piece by piece. Links to files are followed.

    Raises OSError, also when a file shrinks meanwhile.
    """
    for folder, folders, files in os.walk(top, onerror=_raise):
        for name in folders:
            yield _header(os.path.relpath(os.path.join(folder, name), top), tarfile.DIRTYPE, 0, 0)
        for name in files:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                size = missing = status.st_size
                where = os.path.relpath(path, top)
                yield _header(where, tarfile.REGTYPE, size, status.st_mode & 0o777 | 0o400)
                while missing:
                    part = file.read(min(missing, _CHUNK))
                    if not part:
                        raise OSError(f"{path} has shrunk")
                    missing -= len(part)
                    yield part
                yield bytes(-size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, kind: bytes, size: int, mode: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, size, mode
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _raise(error: OSError) -> None:
    raise error
