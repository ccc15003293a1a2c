"""The methods of the VMMS, as a worker of Tango's calls them for one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tango_cloud.vmms import TangoCloud

JOB = ("initializeVM", "waitVM", "copyIn", "runJob", "copyOut")
"""The steps of a job, in their order."""


def steps(
    vmms: TangoCloud, number: int, files: Sequence[object], output: Path, seconds: float
) -> Mapping[str, Callable[[], object]]:
    """`seconds` is how long the machine with that id is waited for."""
    vm = SimpleNamespace(id=number, name="vm", image=None, cores=None, memory=None, disk=None)
    return {
        "initializeVM": lambda: vmms.initializeVM(vm),
        "waitVM": lambda: vmms.waitVM(vm, seconds),
        "copyIn": lambda: vmms.copyIn(vm, files),
        "runJob": lambda: vmms.runJob(vm, 30, 10_000),
        "copyOut": lambda: vmms.copyOut(vm, str(output)),
        "destroyVM": lambda: vmms.destroyVM(vm),
        "safeDestroyVM": lambda: vmms.safeDestroyVM(vm),
    }
