"""What Compute Engine does to its customers, and what we make of it.

The emulated API makes calls and operations fail, for Terraform's plugin and Google's own client
alike; what each error looks like is in tests/compute/README.md.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tango_cloud.api import Cloud
from tango_cloud.core.errors import HostKeyMismatch, NotReadyInTime, ProviderUnavailable
from tango_cloud.core.lifecycle import State

from ..compute.client import Fault
from ..gcp import GcpDeployment, zone_of
from ..waiting import wait_until

OK = "all:\n\t@echo ran\n"
ONE_TYPE = {"TANGO_CLOUD_GCP__MACHINE_TYPES": '["e2-standard-2"]'}
EXHAUSTED = "ZONE_RESOURCE_POOL_EXHAUSTED"


@pytest.fixture
def cloud(gcp: GcpDeployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """The deployment in this process."""
    for name, value in gcp.environment.items():
        monkeypatch.setenv(name, value)
    with Cloud() as cloud:
        yield cloud
        gcp.emulation.clear()
        for entry in cloud.machines():
            cloud.destroy(entry.key)


def run(gcp: GcpDeployment, count: int = 1, *options: str) -> tuple[int, Sequence[Any], str]:
    """As many jobs, each on a machine of its own: exit code, results, what was said."""
    jobs = [gcp.job(f"job{number}", OK) for number in range(count)]
    done = gcp.run("run", *jobs, "--machines", str(count), "--json", *options, **ONE_TYPE)
    return done.returncode, json.loads(done.stdout or "[]"), done.stderr


def kept_zones(gcp: GcpDeployment) -> list[str]:
    """Of the machines that a run has kept, which then go."""
    zones = sorted(zone_of(instance) for instance in gcp.described())
    assert gcp.run("destroy", "--all").returncode == 0
    return zones


def test_a_stock_out_in_one_zone_goes_to_the_next_and_neighbours_stay(gcp: GcpDeployment) -> None:
    gcp.emulation.order(Fault("operation-error", code=EXHAUSTED, zone="us-central1-a", times=1))
    status, _, said = run(gcp, 3, "--keep")
    assert status == 0, said
    assert kept_zones(gcp) == ["us-central1-a", "us-central1-a", "us-central1-b"]


def test_no_capacity_anywhere_fails_and_says_so(gcp: GcpDeployment) -> None:
    gcp.emulation.order(Fault("operation-error", code=EXHAUSTED))
    status, (result,), _ = run(gcp)
    assert status == 3
    assert "us-east1-b" in result["detail"], "the last zone that was tried"
    assert gcp.emulation.calls()["instances.insert"] == 3


@pytest.mark.parametrize(
    "fault",
    [
        Fault("operation-error", code="QUOTA_EXCEEDED", region="us-central1"),
        pytest.param(
            Fault("error", code="quotaExceeded", region="us-central1"), marks=pytest.mark.slow
        ),
    ],
)
def test_a_used_up_quota_is_not_tried_in_the_next_zone_but_in_the_next_region(
    gcp: GcpDeployment, fault: Fault
) -> None:
    gcp.emulation.order(fault)
    status, _, said = run(gcp, 1, "--keep")
    assert status == 0, said
    assert gcp.emulation.calls()["instances.insert"] == 2
    assert kept_zones(gcp) == ["us-east1-b"]


def test_calls_beyond_the_rate_are_made_again(gcp: GcpDeployment) -> None:
    gcp.emulation.order(Fault("error", code="rateLimitExceeded", times=1))
    gcp.emulation.order(
        Fault("error", "instances.aggregatedList", code="rateLimitExceeded", times=2)
    )
    status, _, said = run(gcp)
    assert status == 0, said


def test_a_missing_permission_is_told_by_its_name(gcp: GcpDeployment) -> None:
    message = "Required 'compute.instances.create' permission for this instance"
    gcp.emulation.order(Fault("error", code="forbidden", message=message))
    status, (result,), said = run(gcp)
    assert status == 3
    assert message in result["detail"], said


def test_a_lost_response_leaves_no_second_instance(gcp: GcpDeployment) -> None:
    gcp.emulation.order(Fault("lost-response", times=1))
    status, _, said = run(gcp)
    assert status == 0, said
    assert gcp.described() == []


@pytest.mark.parametrize("effect", ["no-boot", pytest.param("ssh-refused", marks=pytest.mark.slow)])
def test_a_machine_that_never_answers_is_given_up_and_removed(
    gcp: GcpDeployment, cloud: Cloud, effect: Any
) -> None:
    gcp.emulation.order(Fault(effect))
    machine = cloud._fleet.request_next(cloud.shape(), 600)
    wait_until(lambda: len(gcp.instances()) == 1, 60)
    with pytest.raises(NotReadyInTime, match="SSH"):
        cloud._fleet.wait(machine.key, 5)
    cloud.destroy(machine.key)
    assert gcp.instances() == []


def test_a_host_that_is_not_the_machine_is_not_talked_to(gcp: GcpDeployment, cloud: Cloud) -> None:
    gcp.emulation.order(Fault("wrong-host-key"))
    machine = cloud._fleet.request_next(cloud.shape(), 600)
    with pytest.raises(HostKeyMismatch):
        cloud._fleet.wait(machine.key, 60)
    assert [entry.state for entry in cloud.machines()] == [State.FAILED]


def test_a_listing_that_fails_in_part_is_an_error_and_empties_no_books(
    gcp: GcpDeployment, cloud: Cloud
) -> None:
    with cloud.machine() as machine:
        (instance,) = gcp.instances()
        gcp.emulation.order(Fault("unreachable", "instances.aggregatedList", zone="us-central1-b"))
        with pytest.raises(ProviderUnavailable):
            cloud.machines()
        cloud._fleet.wait(machine.key, 1)  # it answers, which needs no listing
        assert gcp.instances() == [instance]
        gcp.emulation.clear()
        assert [entry.state for entry in cloud.machines()] == [State.READY]


def test_a_spot_machine_that_is_taken_back_is_replaced(gcp: GcpDeployment) -> None:
    gcp.environment["TANGO_CLOUD_GCP__MARKETS"] = '["spot"]'
    job, mark = gcp.sleeper("slow")
    process = gcp.start("run", job)
    first = gcp.wait_until_running(mark)
    (instance,) = gcp.instances()
    gcp.emulation.interrupt(instance, 1.0)
    deadline = time.monotonic() + 60
    while gcp.wait_until_running(mark) == first:
        assert time.monotonic() < deadline, "the first machine's processes live on"
    assert gcp.instances() != [instance]
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
