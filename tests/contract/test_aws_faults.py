"""What EC2 does to its customers, and what we make of it.

The proxy in front of the emulated EC2 makes calls fail, for Terraform's plugin and for boto3 alike.
LocalStack by itself has unlimited capacity, no quotas, and starts everything at once.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from emulation.client import Fault

from tango_cloud.api import Cloud
from tango_cloud.core.errors import (
    AuthenticationError,
    HostKeyMismatch,
    NotReadyInTime,
    ProviderUnavailable,
)
from tango_cloud.core.lifecycle import State

from ..aws import AwsDeployment
from ..waiting import wait_until

OK = "all:\n\t@echo ran\n"


@pytest.fixture
def cloud(aws: AwsDeployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """The deployment in this process."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    with Cloud() as cloud:
        yield cloud
        aws.emulation.clear()
        for entry in cloud.machines():
            cloud.destroy(entry.key)


def run(aws: AwsDeployment, count: int = 1, **more: str) -> tuple[int, Sequence[Any], str]:
    """As many jobs, each on a machine of its own: exit code, results, what was said."""
    jobs = [aws.job(f"job{number}", OK) for number in range(count)]
    done = aws.run("run", *jobs, "--machines", str(count), "--json", **more)
    return done.returncode, json.loads(done.stdout or "[]"), done.stderr


def made(aws: AwsDeployment, known: set[str]) -> Sequence[Any]:
    """The instances made since `known`, in whatever state."""
    states = ("pending", "running", "shutting-down", "terminated")
    return [i for i in aws.described(*states) if i["InstanceId"] not in known]


def known(aws: AwsDeployment) -> set[str]:
    return {instance["InstanceId"] for instance in made(aws, set())}


def test_no_capacity_in_one_zone_goes_to_the_next_and_neighbours_stay(aws: AwsDeployment) -> None:
    before = known(aws)
    aws.emulation.order(
        Fault("error", code="InsufficientInstanceCapacity", zone="us-east-1a", times=1)
    )
    status, results, said = run(aws, 3)
    assert status == 0, said
    assert [row["status"] for row in results] == ["passed"] * 3
    zones = sorted(i["Placement"]["AvailabilityZone"] for i in made(aws, before))
    assert zones == ["us-east-1a", "us-east-1a", "us-east-1b"]


@pytest.mark.slow
def test_no_capacity_anywhere_fails_and_says_so(aws: AwsDeployment) -> None:
    aws.emulation.order(Fault("error", code="InsufficientInstanceCapacity"))
    status, (result,), _ = run(
        aws,
        TANGO_CLOUD_AWS__INSTANCE_TYPES='["t3.small"]',
        TANGO_CLOUD_AWS__MARKETS='["spot"]',
        TANGO_CLOUD_AWS__ZONES='["us-east-1a"]',
    )
    assert status == 3
    assert "InsufficientInstanceCapacity" in result["detail"]


@pytest.mark.slow
def test_a_used_up_quota_is_not_tried_in_every_zone_but_in_the_next_market(
    aws: AwsDeployment,
) -> None:
    before = known(aws)
    aws.emulation.order(Fault("error", code="VcpuLimitExceeded", market="on-demand"))
    status, (result,), said = run(aws)
    assert status == 3, said
    assert "VcpuLimitExceeded" in result["detail"]
    aws.emulation.reset_calls()
    status, _, said = run_again(aws, TANGO_CLOUD_AWS__MARKETS='["on-demand", "spot"]')
    assert status == 0, said
    (instance,) = made(aws, before)
    assert instance["InstanceLifecycle"] == "spot"


def run_again(aws: AwsDeployment, **more: str) -> tuple[int, Sequence[Any], str]:
    done = aws.run("run", str(aws.folder / "jobs" / "job0"), "--json", **more)
    return done.returncode, json.loads(done.stdout or "[]"), done.stderr


def test_throttled_calls_are_made_again(aws: AwsDeployment) -> None:
    aws.emulation.order(Fault("error", code="RequestLimitExceeded", times=2))
    aws.emulation.order(
        Fault("error", action="ec2:DescribeInstances", code="RequestLimitExceeded", times=2)
    )
    status, _, said = run(aws)
    assert status == 0, said


def test_a_missing_permission_is_told_at_once_and_by_its_name(aws: AwsDeployment) -> None:
    message = "You are not authorized to perform: ec2:RunInstances"
    aws.emulation.order(Fault("error", code="UnauthorizedOperation", message=message))
    status, (result,), said = run(aws)
    assert status == 3
    assert message in result["detail"], said


def test_a_lost_response_makes_no_second_instance(aws: AwsDeployment) -> None:
    """Terraform's plugin asks again with the same token, which EC2 answers with the same instance;
    LocalStack does not know tokens, the proxy does."""
    before = known(aws)
    aws.emulation.order(Fault("lost-response", times=1))
    status, _, said = run(aws)
    assert status == 0, said
    assert len(made(aws, before)) == 1


@pytest.mark.slow
def test_an_instance_that_goes_straight_to_terminated_is_made_again(aws: AwsDeployment) -> None:
    before = known(aws)
    aws.emulation.order(Fault("terminated", code="Server.InternalError", times=1))
    status, _, said = run(aws)
    assert status == 0, said
    assert len(made(aws, before)) == 2


@pytest.mark.slow
def test_a_slow_boot_is_waited_for(aws: AwsDeployment) -> None:
    aws.emulation.order(Fault("pending", delay=3))
    aws.emulation.order(Fault("boot-delay", delay=3))
    status, _, said = run(aws)
    assert status == 0, said


@pytest.mark.slow
@pytest.mark.parametrize("effect", ["no-boot", "ssh-refused"])
def test_a_machine_that_never_answers_is_given_up_and_removed(
    aws: AwsDeployment, cloud: Cloud, effect: Any
) -> None:
    aws.emulation.order(Fault(effect))
    machine = cloud._fleet.request_next(cloud.shape(), 600)
    wait_until(lambda: len(aws.instances()) == 1, 60)
    with pytest.raises(NotReadyInTime, match="SSH"):
        cloud._fleet.wait(machine.key, 8)
    cloud.destroy(machine.key)
    assert aws.instances() == []


def test_a_wrong_host_key_is_not_talked_to(aws: AwsDeployment, cloud: Cloud) -> None:
    aws.emulation.order(Fault("wrong-host-key"))
    machine = cloud._fleet.request_next(cloud.shape(), 600)
    with pytest.raises(HostKeyMismatch):
        cloud._fleet.wait(machine.key, 60)
    assert [entry.state for entry in cloud.machines()] == [State.FAILED]


def test_a_listing_that_fails_is_an_error_and_destroys_nothing(
    aws: AwsDeployment, cloud: Cloud
) -> None:
    with cloud.machine() as machine:
        (instance,) = aws.instances()
        aws.emulation.order(Fault("error", action="ec2:Describe*", code="InternalError"))
        with pytest.raises(ProviderUnavailable):
            cloud.machines()
        cloud._fleet.wait(machine.key, 1)  # it answers, which needs no listing
        assert aws.instances() == [instance]
        aws.emulation.clear()
        assert [entry.state for entry in cloud.machines()] == [State.READY]


def test_a_token_that_expires_in_the_middle_stops_us_and_loses_nothing(
    aws: AwsDeployment, cloud: Cloud
) -> None:
    machine = cloud._fleet.request_next(cloud.shape(), 600)
    cloud._fleet.wait(machine.key, 60)
    aws.emulation.order(Fault("error", action="*", code="RequestExpired"))
    with pytest.raises(AuthenticationError, match="RequestExpired"):
        cloud.machines()
    with pytest.raises(AuthenticationError):
        cloud.destroy(machine.key)
    assert len(aws.instances()) == 1
    aws.emulation.clear()
    # What was asked for goes on by itself.
    wait_until(lambda: not cloud.machines(), 60)
    assert aws.instances() == []


@pytest.mark.slow
def test_a_spot_machine_that_is_taken_back_is_replaced(aws: AwsDeployment) -> None:
    """Its job is begun again, on another machine."""
    aws.environment["TANGO_CLOUD_AWS__MARKETS"] = '["spot"]'
    before = known(aws)
    job, mark = aws.sleeper("slow")
    process = aws.start("run", job)
    first = aws.wait_until_running(mark)
    (instance,) = aws.instances()
    aws.emulation.interrupt(instance, 1.0)
    deadline = time.monotonic() + 60
    while aws.wait_until_running(mark) == first:
        assert time.monotonic() < deadline, "the first machine's processes live on"
    assert len(made(aws, before)) == 2
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said


@pytest.mark.slow
def test_more_machines_than_ec2_lets_us_ask_for_at_once_are_asked_for_in_time(
    aws: AwsDeployment,
) -> None:
    """With EC2's own limits. Asked for at once, three at the least would be refused and asked for
    again; Terraform's start takes now more, now less, so that one may be all the same."""
    aws.emulation.order(Fault("error", code="RequestLimitExceeded", burst=5, per_second=2.0))
    count = 8
    jobs = [aws.job(f"job{number}", OK) for number in range(count)]
    aws.environment["TANGO_CLOUD_AWS__LAUNCH_BURST"] = "5"
    done = aws.run("run", *jobs, "--machines", str(count))
    assert done.returncode == 0, done.stderr
    assert aws.emulation.calls()["ec2:RunInstances"] < count + 3
