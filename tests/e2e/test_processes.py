"""Several processes of one deployment at once, and one that is killed in the middle."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import psutil

from ..deployment import Deployment
from ..waiting import wait_until

_VMMS = """
import sys, types
from tango_cloud import TangoCloud
vmms = TangoCloud()
def vm(number):
    return types.SimpleNamespace(id=number, name="local", image="local.img")
"""

_SAME_TWELVE = (
    _VMMS
    + """
from concurrent.futures import ThreadPoolExecutor
vms = [vm(number) for number in range(1000, 1012)]
with ThreadPoolExecutor(12) as pool:
    asked = set(pool.map(vmms.initializeVM, vms))
    waited = set(pool.map(lambda v: vmms.waitVM(v, 60), vms))
print(sorted(asked), sorted(waited))
print(" ".join(v.instance_id for v in vms))
"""
)

_INITIALISE_AND_STAY = (
    _VMMS
    + """
for number in range(1000, 1006):
    vmms.initializeVM(vm(number))
print("asked", flush=True)
sys.stdin.read()
"""
)

_WAIT = (
    _VMMS
    + """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(6) as pool:
    print(sorted(set(pool.map(lambda number: vmms.waitVM(vm(number), 60), range(1000, 1006)))))
"""
)


def test_four_processes_asking_for_the_same_machines_get_the_same_machines(
    deployment: Deployment,
) -> None:
    processes = [deployment.python(_SAME_TWELVE) for _ in range(4)]
    told = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert {lines[0] for lines in told} == {"[0] [0]"}
    assert len({lines[1] for lines in told}) == 1
    assert len(deployment.instances()) == 12
    assert deployment.run("destroy", "--all").returncode == 0


def test_a_process_killed_while_terraform_runs_is_stood_in_for(deployment: Deployment) -> None:
    """The machines of its wave become ready for another process, none of them twice."""
    first = deployment.python(_INITIALISE_AND_STAY)
    wait_until(lambda: _applying(deployment), 60, look=0.005)
    first.kill()
    first.communicate()
    second = deployment.python(_WAIT)
    assert second.communicate(timeout=120)[0] == "[0]\n"
    listed = json.loads(deployment.run("vms", "--json").stdout)
    ready = [vm["id"] for vm in listed if vm["state"] == "ready"]
    assert sorted(ready) == list(range(1000, 1006))
    assert deployment.run("destroy", "--all").returncode == 0


def test_a_terraform_killed_with_its_process_leaves_nothing_unfound(
    deployment: Deployment,
) -> None:
    """SIGKILL for both: what is running then is in no state, and only its tags tell of it."""
    first = deployment.python(_INITIALISE_AND_STAY)
    wait_until(lambda: len(deployment.instances()) >= 2, 60, look=0.002)
    first.kill()
    for process in deployment.processes():
        with contextlib.suppress(psutil.Error):  # it may end by itself at any moment
            if Path(process.exe()).name == "terraform":
                process.kill()
    first.communicate()
    second = deployment.python(_WAIT)
    assert second.communicate(timeout=120)[0] == "[0]\n"
    assert deployment.run("destroy", "--all").returncode == 0
    assert json.loads(deployment.run("vms", "--json").stdout) == []


def _applying(deployment: Deployment) -> bool:
    return any((wave / "inputs.tfvars.json").exists() for wave in deployment.waves())
