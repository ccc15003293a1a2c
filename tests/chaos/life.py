"""A whole life, as Tango lives it: two machines from initializeVM to safeDestroyVM, a job on each.

Run as a program: `python -m tests.chaos.life STATE FOLDER`. Everything that the outside can know of
it is in `FOLDER/journal`, a line for each step that was begun or is over.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from .journal import note
from .points import install
from .steps import JOB, steps

if TYPE_CHECKING:
    from tango_cloud.vmms import TangoCloud

IDS = (1000, 1001)
_SECONDS = 60


def makefile(folder: Path, number: int) -> Path:
    """What the machine with that id is to run."""
    return folder / f"{number}.make"


def output(folder: Path, number: int) -> Path:
    return folder / f"{number}.out"


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


def _live(cloud: TangoCloud, folder: Path, number: int) -> None:
    job = SimpleNamespace(localFile=str(makefile(folder, number)), destFile="Makefile")
    each = steps(cloud, number, [job], output(folder, number), _SECONDS)
    for name in (*JOB, "safeDestroyVM"):
        note(folder / "journal", f"{number} {name} begins")
        note(folder / "journal", f"{number} {name} {each[name]()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
