"""What is left when processes are killed and books are lost, and how it is put right."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..chaos.invariants import reconcile as reconcile_at_once
from ..deployment import Deployment
from ..waiting import wait_until

OK = "all:\n\ttrue\n"


def reconcile(
    deployment: Deployment, *options: str, status: int = 0
) -> Sequence[Mapping[str, Any]]:
    done = deployment.run("reconcile", "--json", *options)
    assert done.returncode == status, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def kinds(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    return {row["kind"] for row in rows}


def lose_ledger(deployment: Deployment) -> None:
    for file in deployment.state.glob("ledger.*"):
        file.unlink()


def listed(deployment: Deployment) -> Sequence[Mapping[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(deployment.run("vms", "--json").stdout)
    return rows


def test_machines_of_a_run_that_was_killed_go_with_the_next_pass(deployment: Deployment) -> None:
    job, mark = deployment.sleeper("slow")
    process = deployment.start("run", job)
    deployment.wait_until_running(mark)
    process.kill()
    process.communicate()
    assert kinds(reconcile(deployment, "--dry-run", status=1)) == {"deserted"}
    assert len(listed(deployment)) == 1, "a dry run does nothing"
    (row,) = reconcile(deployment)
    assert (row["kind"], row["done"], row["error"]) == ("deserted", True, None)
    assert reconcile(deployment) == []
    assert deployment.run("reconcile").stdout == "", "a cron sends a mail for every word"


def test_a_wave_whose_owner_was_killed_is_finished(deployment: Deployment) -> None:
    process = deployment.start("run", deployment.job("job", OK), "--keep")
    wait_until(lambda: bool(deployment.waves()))
    process.kill()
    process.communicate()
    # Its Terraform, if it was started, ends by itself, and a pass waits for it.
    wait_until(lambda: not {"abandoned"} & kinds(reconcile_at_once(deployment)), seconds=30)
    for row in listed(deployment):
        assert row["state"] != "orphan", "what was made is on the books"
    assert deployment.run("destroy", "--all").returncode == 0
    reconcile_at_once(deployment)


def test_a_lost_ledger_is_made_again_and_its_machines_are_used(deployment: Deployment) -> None:
    assert deployment.run("run", deployment.job("job", OK), "--keep").returncode == 0
    (before,) = listed(deployment)
    lose_ledger(deployment)
    assert listed(deployment)[0]["state"] == "orphan"
    assert {row["action"] for row in reconcile(deployment)} == {"wait"}, "it is young"
    done = deployment.run("recover", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["instance_name"], row["done"]) == (before["instance_name"], True)
    assert listed(deployment)[0]["state"] == "starting"
    used = deployment.python(USE)
    told, _ = used.communicate(timeout=60)
    assert told == "0 0\n", "waited for, and a job ran on it"
    assert deployment.run("destroy", "--all").returncode == 0


USE = """
from types import SimpleNamespace
from tango_cloud.vmms import TangoCloud
vm = SimpleNamespace(id=100000, name="local", image=None, cores=None, memory=None, disk=None)
cloud = TangoCloud()
print(cloud.waitVM(vm, 30), cloud.copyIn(vm, []))
"""


def test_with_everything_lost_nothing_stays(deployment: Deployment) -> None:
    """Ledger, states and host keys: what cannot be trusted any more is removed by its tags."""
    assert deployment.run("run", deployment.job("job", OK), "--keep").returncode == 0
    lose_ledger(deployment)
    for folder in (*deployment.waves(), deployment.state / deployment.prefix / "known_hosts"):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    assert kinds(reconcile_at_once(deployment)) == {"orphan"}
    assert listed(deployment) == []
