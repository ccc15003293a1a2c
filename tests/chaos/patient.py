"""A process that lives as long as Tango's and is never at rest for long: the patient of the soak.

Run as a program: `python -m tests.chaos.patient FOLDER HOST PORT SEED`. Each order, a line of its
input, is answered by a line of JSON: `live` begins, `rest` ends when the last life has, `memory`
tells what is held (`measures.Held`), `look` how many objects there are of each type. All that the
outside can know of its lives is in `FOLDER/journal`.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import itertools
import json
import logging
import math
import random
import signal
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import psutil

from tango_cloud.core.errors import TangoCloudError
from tango_cloud.vmms import TangoCloud

from .journal import note

WORKERS = 12
_READY_SECONDS = 60
_TIDE_SECONDS = 5.0
"""Who waits for company begins together with all others who do."""
_JOBS = (1, 1, 2, 3, 8)
"""How many a life may have."""
_OUTPUT_BYTES = 100_000
_KINDS: Mapping[str, tuple[int, float]] = {
    "true": (5, 30),
    "sleep 0.5": (3, 30),
    "sleep 4": (2, 30),
    "sleep 60": (1, 1),
    "head -c 500000 /dev/zero | tr '\\0' x": (1, 30),
}
"""What a job does: how often, and the time-out (seconds)."""
_FRAMES = 12
_TRACED = 20


@dataclass
class Place:
    """What the lives of a process share. Jobs tell that they run by a connection to `address`."""

    cloud: TangoCloud
    folder: Path
    address: tuple[str, int]
    resting: threading.Event = field(default_factory=threading.Event)
    machines: itertools.count[int] = field(default_factory=lambda: itertools.count(1000))
    jobs: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def note(self, line: str) -> None:
        note(self.folder / "journal", line)


class Life:
    """Of one machine, as Tango's worker lives it: whatever fails, it is destroyed at the end."""

    def __init__(self, place: Place, number: int, chance: random.Random) -> None:
        self._place = place
        self._number = number
        self._chance = chance
        self._vm = SimpleNamespace(
            id=number, name="vm", image=None, cores=None, memory=None, disk=None
        )

    def live(self) -> None:
        cloud, vm, chance = self._place.cloud, self._vm, self._chance
        regretted = chance.random() < 0.1
        if self._step("initializeVM", lambda: cloud.initializeVM(vm)) == 0 and not regretted:
            for _ in range(chance.choice(_JOBS)):
                if self._place.resting.is_set() or not self._job():
                    break
        if chance.random() < 0.125:
            self._step("destroyVM", lambda: cloud.destroyVM(vm))
        else:
            self._step("safeDestroyVM", lambda: cloud.safeDestroyVM(vm))
            self._step("existsVM", lambda: cloud.existsVM(vm))

    def _job(self) -> bool:
        """Whether the machine is good for another one."""
        cloud, vm, job = self._place.cloud, self._vm, next(self._place.jobs)
        kinds = list(_KINDS)
        kind = self._chance.choices(kinds, [weight for weight, _ in _KINDS.values()])[0]
        host, port = self._place.address
        makefile = self._place.folder / f"{self._number}.make"
        tell = f"bash -c 'echo {job} >/dev/tcp/{host}/{port}'"
        makefile.write_text(f"all:\n\t@{tell}\n\t@echo job {job}\n\t@{kind}\n")
        output = self._place.folder / f"{self._number}.out"
        files = [SimpleNamespace(localFile=str(makefile), destFile="Makefile")]
        try:
            if self._step("waitVM", lambda: cloud.waitVM(vm, _READY_SECONDS)) != 0:
                return False
            if self._step("copyIn", lambda: cloud.copyIn(vm, files)) != 0:
                return False
            seconds = _KINDS[kind][1]
            ran = self._step(
                "runJob", lambda: cloud.runJob(vm, seconds, _OUTPUT_BYTES), name=str(job)
            )
            if ran not in {0, 2}:
                return False
            if self._step("copyOut", lambda: cloud.copyOut(vm, str(output))) != 0:
                return False
            if f"\njob {job}\n" not in output.read_text():
                self._place.note(f"{job} output another's")
            return True
        finally:
            for file in (makefile, output):
                file.unlink(missing_ok=True)

    def _step(self, what: str, step: Callable[[], object], name: str = "") -> object:
        name = name or f"vm-{self._number}"
        self._place.note(f"{name} {what} begins")
        answer = step()
        self._place.note(f"{name} {what} {answer}")
        return answer


class Load:
    """`WORKERS` threads, each with one life after another, and one that looks at all of them."""

    def __init__(self, place: Place, seed: str) -> None:
        self._place = place
        self._seed = seed
        self._rounds = itertools.count()
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        self._place.resting.clear()
        seed = f"{self._seed} {next(self._rounds)}"
        chances = [random.Random(f"{seed} {worker}") for worker in range(WORKERS)]
        self._threads = [threading.Thread(target=self._work, args=(one,)) for one in chances]
        self._threads.append(threading.Thread(target=self._watch))
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._place.resting.set()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _work(self, chance: random.Random) -> None:
        number = next(self._place.machines)
        while not self._place.resting.wait(_pause(chance)):
            Life(self._place, number, chance).live()
            # An identity may come again, as Tango's do.
            if chance.random() < 0.75:
                number = next(self._place.machines)

    def _watch(self) -> None:
        """As Tango's server does, whoever else is at work."""
        cloud = self._place.cloud
        while not self._place.resting.wait(1.0):
            with contextlib.suppress(TangoCloudError):
                for vm in cloud.getVMs()[:1]:
                    cloud.getPartialOutput(vm)


def _pause(chance: random.Random) -> float:
    """Before a life, in seconds: none, any, or until others begin."""
    now = time.monotonic()
    tide = math.ceil(now / _TIDE_SECONDS) * _TIDE_SECONDS - now
    return chance.choice([0.0, chance.uniform(0.0, 8.0), tide])


class _Mallinfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks"),
            *("uordblks", "fordblks", "keepcost"),
        )
    )


class Memory:
    """What glibc, SQLite and Python say that they have given out."""

    def __init__(self) -> None:
        self._mallinfo = ctypes.CDLL(None).mallinfo2
        self._mallinfo.restype = _Mallinfo
        mapped = {file.path for file in psutil.Process().memory_maps()}
        (library,) = {path for path in mapped if "libsqlite3" in path}
        self._sqlite = ctypes.CDLL(library).sqlite3_memory_used
        self._sqlite.restype = ctypes.c_int64

    def look(self) -> Mapping[str, int]:
        info = self._mallinfo()
        return {
            "sqlite": self._sqlite(),
            "malloc": info.uordblks + info.hblkhd,
            "blocks": sys.getallocatedblocks(),
        }


class Objects:
    """What there is of each type, and where memory went since the first look, if that is traced."""

    def __init__(self) -> None:
        self._first: tracemalloc.Snapshot | None = None

    def look(self) -> Mapping[str, object]:
        gc.collect()
        kinds = map(type, gc.get_objects())
        counts = Counter(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
        return {"counts": counts, "traced": self._traced()}

    def _traced(self) -> Sequence[str]:
        if not tracemalloc.is_tracing():
            return []
        now = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(inclusive=False, filename_pattern=tracemalloc.__file__)]
        )
        first, self._first = self._first, self._first or now
        if first is None:
            return []
        grown = now.compare_to(first, "traceback")[:_TRACED]
        return ["\n".join([str(one), *one.traceback.format(_FRAMES)]) for one in grown]


def main(folder: Path, address: tuple[str, int], seed: str) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(threadName)s %(message)s")
    # paramiko tells there of every connection that breaks, with a traceback.
    logging.getLogger("tango_cloud.ssh").propagate = False
    # Where everybody is, for who wonders why there is no answer.
    faulthandler.register(signal.SIGUSR1)
    cloud, objects, memory = TangoCloud(), Objects(), Memory()
    load = Load(Place(cloud, folder, address), seed)
    orders: Mapping[str, Callable[[], object]] = {
        "live": load.begin,
        "rest": load.end,
        "look": objects.look,
        "memory": memory.look,
    }
    for order in sys.stdin:
        sys.stdout.write(f"{json.dumps(orders[order.strip()]())}\n")
        sys.stdout.flush()
    cloud._fleet.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), (sys.argv[2], int(sys.argv[3])), sys.argv[4])
