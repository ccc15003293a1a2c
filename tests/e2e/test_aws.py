"""The main job on an emulated EC2, from the command line, with machines that really answer SSH."""

from __future__ import annotations

import json
import signal
import threading
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from emulation.client import Emulation

from tango_cloud.core.settings import load
from tango_cloud.wiring import build_deployment, build_provider

from ..aws import AwsDeployment, make_aws_deployment, need_systems
from ..deployment import CHECKOUT
from .main_job import run_main_job

POLICY = json.loads((CHECKOUT / "docs" / "aws-iam-policy.json").read_text())
NEVER_CALLED = {"ec2:CreateTags", "ec2:DeleteNetworkInterface", "ec2:DeleteVolume"}
"""Allowed all the same: by the first the creating calls may have tags, the others end strays."""
LIFE = "life"
"""A deployment that shares nothing with those of other tests."""
MINE = [{"Name": "tag:tango-deployment", "Values": [LIFE]}]


def test_the_main_job(aws: AwsDeployment) -> None:
    run_main_job(aws, "--machines", "3")
    gone = aws.described("terminated")
    assert len({instance["InstanceId"] for instance in gone}) >= 3


def test_a_job_is_kept_from_the_metadata_service_and_root_is_not_among_its_powers(
    aws: AwsDeployment,
) -> None:
    """User data stands there: the bootstrap host key, for one."""
    need_systems(aws.emulation)
    ask = "curl -s -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60'"
    job = aws.job(
        "curious",
        f"all:\n\t@id -un; {ask} http://169.254.169.254/latest/api/token; echo curl $$?\n"
        "\t@sudo -n true 2>/dev/null; echo sudo $$?\n",
    )
    done = aws.run("run", job, "--json")
    output = (aws.folder / "output" / "curious.txt").read_text()
    assert done.returncode == 0, done.stderr + output
    who, curl, sudo = output.splitlines()[1:]
    assert who == "autograde"
    assert curl == "curl 7", "it could not connect"
    assert sudo != "sudo 0"


@pytest.mark.slow
def test_interrupted_it_leaves_nothing(aws: AwsDeployment) -> None:
    job, mark = aws.sleeper("slow")
    process = aws.start("run", job)
    aws.wait_until_running(mark)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=90)
    assert process.returncode == 130, told
    assert "nothing is left" in told
    assert aws.instances() == []


def test_a_whole_life_ends_without_a_trace_and_needs_what_the_policy_allows(
    emulation: Emulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a deployment that makes its own network."""
    network = {"TANGO_CLOUD_AWS__NETWORK_CIDR": emulation.subnetwork()}
    aws = make_aws_deployment(tmp_path, emulation, tmp_path / "state", LIFE, **network)
    job = aws.job("job", "all:\n\ttrue\n")
    succeed(aws, "run", job, "--keep")
    (listed,) = json.loads(succeed(aws, "vms", "--json"))
    (described,) = aws.described()
    assert listed["instance_id"] == described["InstanceId"]
    assert listed["address"] == emulation.place(described["PrivateIpAddress"])[0]
    succeed(aws, "doctor")
    refused = aws.run("destroy", "--envelope")
    assert (refused.returncode, "machines" in refused.stderr) == (2, True)
    succeed(aws, "destroy", "--all")

    remove_template(emulation)
    succeed(aws, "run", job)
    change_envelope(aws, monkeypatch)
    succeed(aws, "destroy", "--all", "--envelope")
    aws.assert_nothing_left()
    ec2 = emulation.client()
    assert ec2.describe_vpcs(Filters=MINE)["Vpcs"] == []
    assert ec2.describe_launch_templates(Filters=MINE)["LaunchTemplates"] == []
    assert ec2.describe_security_groups(Filters=MINE)["SecurityGroups"] == []
    assert_policy_fits(set(emulation.calls()))


def succeed(aws: AwsDeployment, *arguments: str) -> str:
    done = aws.run(*arguments)
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


def remove_template(emulation: Emulation) -> None:
    """A part of the envelope, as if by somebody else."""
    ec2 = emulation.client()
    (template,) = ec2.describe_launch_templates(Filters=MINE)["LaunchTemplates"]
    ec2.delete_launch_template(LaunchTemplateId=template["LaunchTemplateId"])


def change_envelope(aws: AwsDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a way to the internet, and others may reach it."""
    aws.environment |= {
        "TANGO_CLOUD_AWS__PUBLIC_ADDRESS": "true",
        "TANGO_CLOUD_AWS__SSH_FROM": '["192.0.2.8/32", "2001:db8::8/128"]',
    }
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    settings = load()
    build_deployment(settings).stacks._envelope(build_provider(settings, "aws"), threading.Event())


def assert_policy_fits(called: set[str]) -> None:
    """It allows what was called, and no more."""
    allowed = set[str]()
    for statement in POLICY["Statement"]:
        assert statement["Effect"] == "Allow"
        actions = statement["Action"]
        allowed |= {actions} if isinstance(actions, str) else set(actions)
    refused = [c for c in called if not any(fnmatchcase(c, action) for action in allowed)]
    assert not refused, "called, and not allowed"
    needless = {a for a in allowed if not any(fnmatchcase(c, a) for c in called)}
    assert needless == NEVER_CALLED, "allowed, and not called"
