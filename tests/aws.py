"""Deployments on an emulated EC2, and what is asked of that cloud behind their back."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from emulation.client import Emulation

from tango_cloud.core import tags

from .deployment import leaving_nothing, make_deployment
from .emulated import EmulatedDeployment, emulated

IMAGE = "course.img"
"""The image that every emulated cloud of the tests has."""
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
"""Where the existing network has subnets."""


@dataclass
class AwsDeployment(EmulatedDeployment):
    emulation: Emulation = field(kw_only=True)

    def instances(self) -> list[str]:
        return [instance["InstanceId"] for instance in self.described()]

    def uids(self) -> dict[str, str]:
        return {
            i["InstanceId"]: {tag["Key"]: tag["Value"] for tag in i["Tags"]}.get(tags.UID, "")
            for i in self.described()
        }

    def described(self, *states: str) -> Sequence[Mapping[str, Any]]:
        """Its instances that are not gone (or those in `states`), as EC2 describes them."""
        wanted = states or ("pending", "running", "shutting-down", "stopping", "stopped")
        pages = (
            self.emulation.client()
            .get_paginator("describe_instances")
            .paginate(
                Filters=[
                    {"Name": f"tag:{tags.DEPLOYMENT}", "Values": [tags.encode(self.prefix)]},
                    {"Name": "instance-state-name", "Values": list(wanted)},
                ]
            )
        )
        return [i for page in pages for r in page["Reservations"] for i in r["Instances"]]

    def terminate(self, instance_id: str) -> None:
        self.emulation.client().terminate_instances(InstanceIds=[instance_id])


def make_aws_deployment(
    folder: Path, emulation: Emulation, state: Path, prefix: str, **more: str
) -> AwsDeployment:
    ours = {
        "TANGO_CLOUD_PROVIDER": "aws",
        "TANGO_CLOUD_PREFIX": prefix,
        "TANGO_CLOUD_STATE_DIR": str(state),
    }
    made = make_deployment(folder, **(emulation.environment | ours | more))
    return AwsDeployment(made.folder, made.environment, emulation=emulation)


@pytest.fixture(scope="session")
def running_emulation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulation]:
    """An emulated EC2 whose instances are real machines, one for all tests of a process."""
    folder = tmp_path_factory.mktemp("emulation")
    with emulated(lambda: Emulation.start(folder), IMAGE) as emulation:
        yield emulation


@pytest.fixture
def emulation(running_emulation: Emulation) -> Iterator[Emulation]:
    """Without orders from the test before, and with none left to the next."""
    running_emulation.clear()
    running_emulation.reset_calls()
    yield running_emulation
    running_emulation.clear()


def need_systems(emulation: Emulation) -> None:
    """Skips the test where machines have no system of their own."""
    if not emulation.interface:
        pytest.skip("without root machines have no accounts, services or metadata of their own")


@pytest.fixture(scope="session")
def aws_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder that deployments share: Terraform initialised, the envelope applied."""
    return tmp_path_factory.mktemp("aws-state")


@pytest.fixture
def aws(
    emulation: Emulation, aws_state: Path, aws_network: dict[str, str], tmp_path: Path
) -> Iterator[AwsDeployment]:
    """A deployment that must leave nothing but its envelope, which the next one finds."""
    deployment = make_aws_deployment(tmp_path, emulation, aws_state, "tango", **aws_network)
    with leaving_nothing(deployment):
        yield deployment
        emulation.clear()


@pytest.fixture(scope="session")
def aws_network(running_emulation: Emulation) -> dict[str, str]:
    return shared_network(running_emulation)


def shared_network(emulation: Emulation) -> dict[str, str]:
    """An existing network, as settings: deployments that share it have no address in common."""
    ec2 = emulation.client()
    network = ipaddress.IPv4Network(emulation.subnetwork())
    vpc = ec2.create_vpc(CidrBlock=str(network))["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=str(part), AvailabilityZone=zone)["Subnet"][
            "SubnetId"
        ]
        for zone, part in zip(ZONES, network.subnets(prefixlen_diff=2), strict=False)
    ]
    return {
        "TANGO_CLOUD_AWS__VPC_ID": vpc,
        "TANGO_CLOUD_AWS__SUBNET_IDS": json.dumps(subnets),
    }
