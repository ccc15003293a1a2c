"""The main job on an emulated Compute Engine, from the command line, with machines that really
answer SSH. Terraform's plugin is the simulated one, unless the real one is asked for."""

from __future__ import annotations

import json
import signal

import yaml

from ..deployment import CHECKOUT
from ..gcp import GcpDeployment
from .main_job import run_main_job

VERBS = {"insert": "create", "aggregatedList": "list", "wait": "get", "patch": "update"}
"""A method's permission, where it goes by another word."""


def test_the_main_job(gcp: GcpDeployment) -> None:
    run_main_job(gcp, "--machines", "3")
    assert gcp.emulation.calls()["instances.insert"] >= 3


def test_interrupted_it_leaves_nothing(gcp: GcpDeployment) -> None:
    job, mark = gcp.sleeper("slow")
    process = gcp.start("run", job)
    gcp.wait_until_running(mark)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=90)
    assert process.returncode == 130, told
    assert "nothing is left" in told
    assert gcp.instances() == []


def test_kept_machines_are_listed_and_destroyed_and_the_envelope_goes_last(
    gcp: GcpDeployment,
) -> None:
    assert gcp.run("run", gcp.job("job", "all:\n\ttrue\n"), "--keep").returncode == 0
    (listed,) = json.loads(gcp.run("vms", "--json").stdout)
    (instance,) = gcp.described()
    assert listed["instance_id"] == gcp.instances()[0]
    assert listed["address"] == instance["networkInterfaces"][0]["networkIP"]
    assert listed["provider"] == "gcp"
    assert gcp.run("doctor", "--no-probe").returncode in (0, 1)
    refused = gcp.run("destroy", "--envelope")
    assert (refused.returncode, "machines" in refused.stderr) == (2, True)
    done = gcp.run("destroy", "--all", "--envelope")
    assert done.returncode == 0, done.stderr
    assert gcp.emulation.ask("GET", "global/firewalls").get("items", []) == []
    role = yaml.safe_load((CHECKOUT / "docs" / "gcp-iam-role.yaml").read_text())
    needed = set()
    for method in gcp.emulation.calls():
        resource, _, verb = method.partition(".")
        needed.add(f"compute.{resource}.{VERBS.get(verb, verb)}")
    assert needed - {"compute.instances.testIamPermissions"} <= set(role["includedPermissions"])
