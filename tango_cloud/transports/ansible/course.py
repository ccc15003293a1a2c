"""A course's playbook: whether it can be used, and what tells it from another."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from tango_cloud.core.errors import Fault, InputError
from tango_cloud.machine import bundle
from tango_cloud.transports.ansible.playbooks import (
    INHERITED,
    environment,
    launcher,
    playbooks_root,
    private_folder,
)

PREPARE, VERIFY, SEAL = "prepare.yml", "verify.yml", "seal.yml"
_OURS = ("ansible.cfg", PREPARE, VERIFY, SEAL)
_FILES = 10_000
"""More in the folder of a playbook: it does not stand in a folder of its own."""


def check(playbook: Path) -> None:
    """Have Ansible read it, with the roles and the tasks that it imports; no machine is needed.

    Raises InputError.
    """
    _readable(playbook)
    with private_folder() as folder:
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        read = subprocess.run(
            [*launcher(), "--syntax-check", "--inventory", "machine,", str(playbook.absolute())],
            env=inherited | environment(folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if read.returncode:
        said = (read.stderr or read.stdout).strip()[-1000:]
        raise InputError([Fault(str(playbook), said, "a playbook that Ansible can read")])


def digest(playbook: Path | None) -> str:
    """SHA-256, in hexadecimal, of all that decides what a machine is prepared to.

    Of ours: playbooks, roles and `autodriver`. Of the course's: the name of its playbook, and every
    file at or below the folder that it stands in. Hidden files and folders are left out, and
    folders that are links; of links to files the content counts. Of modes it is only whether a file
    is executable. Raises InputError.
    """
    root = playbooks_root()
    ours = [*(root / name for name in _OURS), *_below(root / "roles")]
    parts: list[object] = [hashlib.sha256(bundle.autodriver()).hexdigest()]
    parts += [_part(root, path) for path in sorted(ours)]
    if playbook is not None:
        _readable(playbook)
        folder = playbook.absolute().parent
        parts += [[playbook.name], *(_part(folder, path) for path in sorted(_below(folder)))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _readable(playbook: Path) -> None:
    try:
        playbook.read_bytes()
    except OSError as error:
        raise _unreadable(error) from error


def _below(top: Path) -> list[Path]:
    found = list(itertools.islice(_walk(top), _FILES + 1))
    if len(found) > _FILES:
        fault = Fault(str(top), f"more than {_FILES} files", "a folder of the playbook's own")
        raise InputError([fault])
    return found


def _walk(top: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> NoReturn:
        raise _unreadable(error) from error

    for folder, folders, files in os.walk(top, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def _part(top: Path, path: Path) -> list[object]:
    try:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        return [path.relative_to(top).as_posix(), bool(path.stat().st_mode & 0o100), content]
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> InputError:
    return InputError([Fault(str(error.filename), error.strerror or str(error), "a file")])
