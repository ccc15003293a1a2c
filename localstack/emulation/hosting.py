"""Where hosts are made: a network and who makes hosts in it, from their start to their end.

Of use to the process of any cloud. As root hosts have namespaces of their own, else they are
programs on loopback. Without aiohttp and the like on purpose: the spawner is forked from what is
loaded when `hosting` is entered, and every host carries that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from emulation.loopback import Loopback
from emulation.network import Network
from emulation.spawner import Spawner, fork_spawner


@dataclass(frozen=True)
class Hosting:
    """`consoles` is the folder with a log for each host."""

    network: Network | Loopback
    spawner: Spawner
    consoles: Path


def hosting(
    folder: Path, network: str | None, *more: str, loopback: bool = False
) -> contextlib.AbstractContextManager[Hosting]:
    """Nothing of it is left after. `network` is a /16 (default: one that is free here); `more` are
    the names in `folder` that go, too, with what the next start finds of us should we be killed.
    `loopback`: there, though we be root.

    Raises NoNetwork.
    """
    root, consoles = folder / "root", folder / "consoles"
    consoles.mkdir()
    root.mkdir()
    if loopback or os.geteuid() != 0:
        return _on_loopback(folder / "reach.json", root, consoles, network)
    return _in_namespaces([root, consoles, *(folder / name for name in more)], network)


@contextlib.contextmanager
def _in_namespaces(noted: Sequence[Path], network: str | None) -> Iterator[Hosting]:
    root, consoles = noted[:2]
    ours = Network(network)
    try:
        ours.note(noted)
        spawner = fork_spawner(ours, root)
        try:
            yield Hosting(ours, spawner, consoles)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(spawner.pid, signal.SIGKILL)
            os.waitpid(spawner.pid, 0)
            ours.wait_until_gone()
            root.rmdir()
    finally:
        ours.close()


@contextlib.contextmanager
def _on_loopback(reach: Path, root: Path, consoles: Path, network: str | None) -> Iterator[Hosting]:
    from emulation.machines import fork_machines  # no load for hosts that are forked

    ours = Loopback(network, reach)
    try:
        spawner = fork_machines(root)
        try:
            yield Hosting(ours, spawner, consoles)
        finally:
            spawner.commands.close()  # it stops what runs, and ends
            os.waitpid(spawner.pid, 0)
    finally:
        ours.close()


def console_of(consoles: Path, instance_id: str) -> Path:
    """An id may have slashes, as one of a zone and a name has."""
    return consoles / f"{instance_id.replace('/', '_')}.log"


@contextlib.contextmanager
def folder_for_logs(wanted: Path | None) -> Iterator[Path]:
    """Without a wish, one that is removed again."""
    if wanted:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted
        return
    folder = Path(tempfile.mkdtemp(prefix="tango-cloud-emulation-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
