"""Many callers of `initializeVM` at once, in several processes; run as a program it is one of them.

The ledger, the committer, the waves and the VMMS are the real ones. With a folder, that stands in
the place of Terraform and the cloud: all processes share it, and a machine answers as soon as it is
in it. Without one all is real, as the environment's settings have it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tango_cloud.vmms import adapter

from .deployment import ledger_in
from .shared_cloud import SharedCloud
from .unit.conftest import build_rig, deployment_of
from .unit.fakes import FakeTransport

APPLY_SECONDS = 0.5
SECONDS = 300
DEPLOYMENT = "tango"
"""What the folder stands in for."""


@dataclass(frozen=True, slots=True)
class Call:
    """One caller: what it was answered, by which machine, and how long `initializeVM` took."""

    id: int
    initialized: int
    waited: int
    instance_id: str
    seconds: float


class Callers:
    """Processes that wait for an order, each with a thread for each of its machines."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def initialize(self) -> Sequence[Call]:
        """Everybody asks for their machine at once, and waits for it."""
        return [Call(**call) for calls in self._order("initialize") for call in calls]

    def destroy(self) -> None:
        """Everybody destroys their machine at once; returns when all calls have."""
        self._order("destroy")

    def _order(self, order: str) -> Sequence[Any]:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{order}\n")
            process.stdin.flush()
        return [_told(process) for process in self._processes]


@contextmanager
def callers(ids: Sequence[Sequence[int]], folder: Path | None = None) -> Iterator[Callers]:
    """A process for each sequence of ids, with a thread for each id."""
    if folder is not None:
        ledger_in(folder).close()
    with ExitStack() as stack:
        processes = []
        for one in ids:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.callers", json.dumps(list(one)), str(folder or "")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[1],
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert _told(process) == "ready"
        yield Callers(processes)
        for process in processes:
            process.communicate(timeout=SECONDS)


def _told(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def cloud_in(folder: Path) -> SharedCloud:
    return SharedCloud(folder / "cloud", APPLY_SECONDS)


def _stand_in(folder: Path) -> None:
    """Let the VMMS of this process find the folder instead of a cloud."""
    rig = build_rig(ledger_in(folder), cloud_in(folder), FakeTransport(), folder, DEPLOYMENT)
    vars(adapter)["build_deployment"] = lambda _settings: deployment_of(rig)


def _main(ids: Sequence[int]) -> None:
    vmms = adapter.TangoCloud()
    begin = threading.Barrier(len(ids))
    machines = [
        SimpleNamespace(
            id=number, name="vm", image=None, cores=None, memory=None, disk=None, instance_id=None
        )
        for number in ids
    ]

    def initialize(vm: SimpleNamespace) -> dict[str, Any]:
        begin.wait()
        began = time.monotonic()
        initialized = vmms.initializeVM(vm)
        seconds = time.monotonic() - began
        waited = vmms.waitVM(vm, SECONDS)
        return {
            "id": vm.id,
            "initialized": initialized,
            "waited": waited,
            "instance_id": vm.instance_id,
            "seconds": seconds,
        }

    def destroy(vm: SimpleNamespace) -> None:
        begin.wait()
        vmms.safeDestroyVM(vm)

    orders = {"initialize": initialize, "destroy": destroy}
    with ThreadPoolExecutor(len(ids)) as pool:
        _tell("ready")
        for order in sys.stdin:
            _tell(list(pool.map(orders[order.strip()], machines)))
    vmms._fleet.close()


def _tell(what: object) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[2]:
        _stand_in(Path(sys.argv[2]))
    _main(json.loads(sys.argv[1]))
