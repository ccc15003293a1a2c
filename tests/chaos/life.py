"""A whole life, as Tango lives it: two machines from initializeVM to safeDestroyVM, a job on each.

Run as a program: `python -m tests.chaos.life STATE FOLDER`. Everything that the outside can know of
it is in `FOLDER/journal`, a line for each step that was begun or is over.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

from .points import install

IDS = (1000, 1001)
_SECONDS = 60


def main(state: Path, folder: Path) -> None:
    install(state)
    # Only now: what the modules keep under names of their own is wrapped already.
    from tango_cloud.vmms import TangoCloud

    cloud = TangoCloud()
    lives = [threading.Thread(target=_live, args=(cloud, folder, number)) for number in IDS]
    for life in lives:
        life.start()
    for life in lives:
        life.join()


def _live(cloud: object, folder: Path, number: int) -> None:
    vm = SimpleNamespace(id=number, name="vm", image=None, cores=None, memory=None, disk=None)
    output = folder / f"{number}.out"
    makefile = SimpleNamespace(localFile=str(folder / "Makefile"), destFile="Makefile")
    steps = {
        "initializeVM": lambda: cloud.initializeVM(vm),  # type: ignore[attr-defined]
        "waitVM": lambda: cloud.waitVM(vm, _SECONDS),  # type: ignore[attr-defined]
        "copyIn": lambda: cloud.copyIn(vm, [makefile]),  # type: ignore[attr-defined]
        "runJob": lambda: cloud.runJob(vm, 30, 10_000),  # type: ignore[attr-defined]
        "copyOut": lambda: cloud.copyOut(vm, str(output)),  # type: ignore[attr-defined]
        "safeDestroyVM": lambda: cloud.safeDestroyVM(vm),  # type: ignore[attr-defined]
    }
    for name, step in steps.items():
        _note(folder, f"{number} {name} begins")
        answer = step()
        _note(folder, f"{number} {name} {answer}")


def _note(folder: Path, line: str) -> None:
    descriptor = os.open(folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.fsync(descriptor)
    os.close(descriptor)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
