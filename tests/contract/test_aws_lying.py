"""What an emulated EC2 that lies does not do to us."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from emulation.client import Fault

from ..aws import AwsDeployment
from .lying import Lies, LyingCloud


@dataclass
class AwsLies(Lies):
    deployment: AwsDeployment
    fault = Fault
    listing = "ec2:DescribeInstances"
    creation = "ec2:RunInstances"
    removal = "ec2:TerminateInstances"
    failure = "InternalError"

    def go_away(self) -> None:
        self.order("unreachable", "*")


@pytest.fixture
def lies(aws: AwsDeployment) -> AwsLies:
    return AwsLies(aws)


class TestAwsLying(LyingCloud):
    pass
