"""Many callers of `initializeVM` at once, in several processes; run as a program it is one of them.

The ledger, the committer, the waves and the VMMS are the real ones. In the place of Terraform and
the cloud stands a folder that all processes share, and a machine answers as soon as it is in it.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tango_cloud.core.ledger import Ledger
from tango_cloud.core.model import Instance, MachineRequest
from tango_cloud.vmms import adapter

from .unit.conftest import build_rig
from .unit.fakes import FakeCloud, FakeTransport

APPLY_SECONDS = 0.5
SECONDS = 300


class SharedCloud(FakeCloud):
    """Its instances are files in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.poll_interval = 0.2
        self.before_apply = lambda: time.sleep(APPLY_SECONDS)

    def instances(self, deployment: str) -> Sequence[Instance]:
        found = []
        for file in self._folder.glob("i-*"):
            try:
                found.append(pickle.loads(file.read_bytes()))
            except FileNotFoundError:
                continue  # just removed
        return [instance for instance in found if instance.key.deployment == deployment]

    def terminate(self, instance_ids: Iterable[str]) -> None:
        for instance_id in instance_ids:
            (self._folder / instance_id).unlink(missing_ok=True)

    def give(self, request: MachineRequest, wave: str = "w") -> None:
        super().give(request, wave)
        instance = self.alive.pop(f"i-{request.uid}")
        scratch = self._folder / f"new-{instance.instance_id}"
        scratch.write_bytes(pickle.dumps(instance))
        scratch.rename(self._folder / instance.instance_id)


@dataclass(frozen=True, slots=True)
class Call:
    """One caller: what it was answered, by which machine, and how long `initializeVM` took."""

    id: int
    initialized: int
    waited: int
    instance_id: str
    seconds: float


def call_from_processes(folder: Path, ids: Sequence[Sequence[int]]) -> Sequence[Call]:
    """A process for each sequence of ids, with a thread for each id; all begin at once."""
    (folder / "cloud").mkdir()
    Ledger(_url(folder), folder).close()
    callers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.callers", str(folder), json.dumps(list(one))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        for one in ids
    ]
    try:
        for caller in callers:
            assert caller.stdout is not None
            assert caller.stdout.readline() == "ready\n"
        for caller in callers:
            assert caller.stdin is not None
            caller.stdin.write("go\n")
            caller.stdin.flush()
        told = [caller.communicate(timeout=SECONDS)[0] for caller in callers]
    finally:
        for caller in callers:
            caller.kill()
    return [Call(**call) for text in told for call in json.loads(text)]


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.sqlite3'}"


def _main(folder: Path, ids: Sequence[int]) -> None:
    ledger = Ledger(_url(folder), folder)
    rig = build_rig(ledger, SharedCloud(folder / "cloud"), FakeTransport(), folder, "tango")
    deployment = SimpleNamespace(fleet=rig.fleet, background=SimpleNamespace(start=lambda: None))
    vars(adapter)["build_deployment"] = lambda _settings: deployment
    vmms = adapter.TangoCloud()
    begin = threading.Barrier(len(ids))

    def call(number: int) -> dict[str, Any]:
        vm = SimpleNamespace(
            id=number, name="vm", image=None, cores=None, memory=None, disk=None, instance_id=None
        )
        begin.wait()
        began = time.monotonic()
        initialized = vmms.initializeVM(vm)
        seconds = time.monotonic() - began
        waited = vmms.waitVM(vm, SECONDS)
        return {
            "id": number,
            "initialized": initialized,
            "waited": waited,
            "instance_id": vm.instance_id,
            "seconds": seconds,
        }

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    with ThreadPoolExecutor(len(ids)) as pool:
        calls = list(pool.map(call, ids))
    rig.fleet.close()
    json.dump(calls, sys.stdout)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), json.loads(sys.argv[2]))
