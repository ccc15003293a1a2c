"""Streams of bytes on our side: compressed on their way, and into a file at their end."""

from __future__ import annotations

import contextlib
import secrets
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from tango_cloud.core.errors import MachineUnreachable, OutputError

_CHUNK = 1 << 18
_GZIP = 31
"""zlib's code for a gzip wrapper and the largest window."""


def compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    compress = zlib.compressobj(1, wbits=_GZIP)
    for piece in pieces:
        yield compress.compress(piece)
    yield compress.flush()


def decompressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """In pieces of a good size. Raises MachineUnreachable when the machine sent something else."""
    decompress = zlib.decompressobj(_GZIP)
    try:
        for piece in pieces:
            while piece:
                yield decompress.decompress(piece, _CHUNK)
                piece = decompress.unconsumed_tail
        yield decompress.flush()
    except zlib.error as error:
        raise MachineUnreachable(f"what the machine sent is garbled: {error}") from error


def write_atomically(local: Path, pieces: Iterable[bytes]) -> None:
    """Write the pieces to a file beside `local`, then put it in its place.

    Takes every piece, also when the disk is full: the connection can be used on afterwards. Raises
    OutputError; `local` is then as it was.
    """
    temporary = local.with_name(f".{local.name[:100]}.{secrets.token_hex(8)}")
    try:
        try:
            with temporary.open("xb") as file:
                file.writelines(pieces)
            temporary.replace(local)
        except OSError as error:
            for _ in pieces:
                pass
            raise OutputError(local, error.strerror or str(error)) from error
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
