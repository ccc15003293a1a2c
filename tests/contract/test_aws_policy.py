"""The policy in docs/aws-iam-policy.json: enough for all that a deployment calls, and no more."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from emulation.client import Emulation

from tango_cloud.core.settings import load
from tango_cloud.wiring import build_provider, build_stacks

from ..aws import AwsDeployment, make_aws_deployment
from ..deployment import CHECKOUT

POLICY = json.loads((CHECKOUT / "docs" / "aws-iam-policy.json").read_text())
NEVER_CALLED = {"ec2:CreateTags": "what is allowed by it is to have tags in the creating calls"}
"""Allowed all the same, and why."""


@pytest.fixture
def aws(emulation: Emulation, tmp_path: Path) -> Iterator[AwsDeployment]:
    """The deployment that the policy is for, which makes its own network."""
    network = {"TANGO_CLOUD_AWS__NETWORK_CIDR": emulation.subnetwork()}
    deployment = make_aws_deployment(tmp_path, emulation, tmp_path / "state", "tango", **network)
    yield deployment
    deployment.assert_nothing_left()


def allowed() -> Iterable[str]:
    """Every action that the policy names, patterns included."""
    for statement in POLICY["Statement"]:
        assert statement["Effect"] == "Allow"
        actions = statement["Action"]
        yield from [actions] if isinstance(actions, str) else actions


def test_the_policy_allows_what_is_called_and_nothing_else(
    aws: AwsDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.emulation.reset_calls()
    whole_life(aws)
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    change_and_remove_the_envelope(monkeypatch)
    called = set(aws.emulation.calls())
    refused = [c for c in called if not any(fnmatchcase(c, action) for action in allowed())]
    assert not refused, "called, and not allowed"
    needless = {a for a in allowed() if not any(fnmatchcase(c, a) for c in called)}
    assert needless == set(NEVER_CALLED), "allowed, and not called"


def whole_life(aws: AwsDeployment) -> None:
    job = aws.job("job", "all:\n\t@echo ran\n")
    for step in (
        ("doctor",),
        ("run", job, "--keep"),
        ("vms",),
        ("doctor",),
        ("destroy", "--all"),
    ):
        done = aws.run(*step)
        assert done.returncode == 0, (step, done.stdout, done.stderr)


def change_and_remove_the_envelope(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a way to the internet, and others may reach it."""
    monkeypatch.setenv("TANGO_CLOUD_AWS__PUBLIC_ADDRESS", "true")
    monkeypatch.setenv("TANGO_CLOUD_AWS__SSH_FROM", '["192.0.2.8/32", "2001:db8::8/128"]')
    settings = load()
    stacks = build_stacks(settings)
    stacks._envelope(build_provider(settings, "aws"))
    stacks.remove_envelope("aws")
