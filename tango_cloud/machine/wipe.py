"""Emptying a directory that a hostile job has filled.

Works on file descriptors only and follows nothing. Any depth of nesting is emptied with two open
directories and no recursion: a directory's sub-directories are moved up to the top before it is
removed, so that the deepest tree becomes a flat list.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SECONDS = 600
"""More than any tree takes; an end for one that something alive keeps refilling."""


def empty(top: int) -> None:
    """Remove everything in the directory open as `top`. Raises OSError when something stays."""
    names = _fresh_names()
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        with os.scandir(top) as scan:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in scan]
        if not entries:
            return
        for name, is_directory in entries:
            if is_directory:
                _remove_directory(top, name, names)
            else:
                os.unlink(name, dir_fd=top)
    raise OSError(f"still not empty after {_SECONDS} s: something refills it")


def _remove_directory(top: int, name: str, names: Iterator[str]) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=top)
        return
    # A job may have taken its own rights away. Nothing of it is alive now that could put a link
    # in the directory's place between the check and the change.
    if stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
        os.chmod(name, 0o700, dir_fd=top)
    directory = os.open(name, _DIRECTORY, dir_fd=top)
    try:
        with os.scandir(directory) as scan:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in scan]
        for child, is_directory in entries:
            if is_directory:
                _move_up(directory, child, top, names)
            else:
                os.unlink(child, dir_fd=directory)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=top)


def _move_up(directory: int, child: str, top: int, names: Iterator[str]) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(child, dir_fd=directory)
        return
    os.chmod(child, 0o700, dir_fd=directory)  # its ".." changes, which takes the right to write
    os.rename(child, next(names), src_dir_fd=directory, dst_dir_fd=top)


def _fresh_names() -> Iterator[str]:
    """Names that nothing in the directory has: a job cannot guess them, it is over."""
    prefix = ".wipe-" + os.urandom(8).hex()
    number = 0
    while True:
        number += 1
        yield f"{prefix}-{number}"
