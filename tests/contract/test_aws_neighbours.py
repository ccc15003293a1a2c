"""Others' things in an account on an emulated EC2 are never touched."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from emulation.client import Emulation

from tango_cloud.core import tags

from ..aws import IMAGE, make_aws_deployment
from .neighbours import PREFIX, Account, Labels, NeighboursContract, ours

LIVE = ["pending", "running", "stopping", "stopped"]
ZONE = "us-east-1a"
OF_THE_ENVELOPE = {tags.DEPLOYMENT: PREFIX, "Name": f"tango-{PREFIX}"}


class AwsAccount(Account):
    def __init__(self, emulation: Emulation, folder: Path) -> None:
        self.deployment = make_aws_deployment(folder, emulation, folder / "state", PREFIX)
        self._ec2 = emulation.client()
        filters = [{"Name": "name", "Values": [IMAGE]}]
        self._image = self._ec2.describe_images(Filters=filters)["Images"][0]["ImageId"]
        zone = [{"Name": "availability-zone", "Values": [ZONE]}]
        self._subnet = self._ec2.describe_subnets(Filters=zone)["Subnets"][0]["SubnetId"]

    def make(self, labels: Labels) -> str:
        (made,) = self._ec2.run_instances(
            ImageId=self._image,
            InstanceType="t3.small",
            MinCount=1,
            MaxCount=1,
            SubnetId=self._subnet,
            TagSpecifications=specifications(labels, "instance", "volume"),
        )["Instances"]
        return str(made["InstanceId"])

    def leave(self, labels: Labels) -> str:
        made = self._ec2.create_volume(
            AvailabilityZone=ZONE, Size=1, TagSpecifications=specifications(labels, "volume")
        )
        # An interface has no machine's tags: these are some that a person has made.
        self._interface(labels)
        return str(made["VolumeId"])

    def _interface(self, labels: Labels) -> str:
        made = self._ec2.create_network_interface(
            SubnetId=self._subnet, TagSpecifications=specifications(labels, "network-interface")
        )
        return str(made["NetworkInterface"]["NetworkInterfaceId"])

    def strays(self) -> Collection[str]:
        volume = self._ec2.create_volume(
            AvailabilityZone=ZONE, Size=1, TagSpecifications=specifications(ours(), "volume")
        )
        return [volume["VolumeId"], self._interface(OF_THE_ENVELOPE)]

    def things(self) -> Mapping[str, object]:
        live = [{"Name": "instance-state-name", "Values": LIVE}]
        found: dict[str, object] = {}
        for page in self._ec2.get_paginator("describe_instances").paginate(Filters=live):
            for reservation in page["Reservations"]:
                for one in reservation["Instances"]:
                    found[one["InstanceId"]] = (one["State"]["Name"], one.get("Tags"))
        for volume in self._ec2.describe_volumes()["Volumes"]:
            found[volume["VolumeId"]] = (volume["State"], volume.get("Tags"))
        for interface in self._ec2.describe_network_interfaces()["NetworkInterfaces"]:
            found[interface["NetworkInterfaceId"]] = (interface["Status"], interface["TagSet"])
        return found

    def remove(self, things: Collection[str]) -> None:
        instances = [thing for thing in things if thing.startswith("i-")]
        if instances:
            self._ec2.terminate_instances(InstanceIds=instances)
        for thing in self.things().keys() & set(things):
            if thing.startswith("vol-"):
                self._ec2.delete_volume(VolumeId=thing)
            elif thing.startswith("eni-"):
                self._ec2.delete_network_interface(NetworkInterfaceId=thing)


def specifications(labels: Labels, *kinds: str) -> list[dict[str, Any]]:
    found = [{"Key": key, "Value": text} for key, text in labels.items()]
    return [{"ResourceType": kind, "Tags": found} for kind in kinds] if found else []


@pytest.fixture
def account(emulation: Emulation, tmp_path: Path) -> AwsAccount:
    return AwsAccount(emulation, tmp_path)


class TestAwsNeighbours(NeighboursContract):
    pass
