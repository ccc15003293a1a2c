"""The AWS provider: the contract on an emulated EC2, and what it orders there.

An apply takes some 13 seconds, because the plugin lets ten pass before it looks at an instance.
"""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from emulation.client import Emulation

from tango_cloud.core import tags
from tango_cloud.core.model import MachineRequest, Market

from ..aws import make_aws_deployment
from .emulated_cloud import Applied, EmulatedCloud, envelope_applied
from .provider_contract import Cloud, ProviderContract

OWNER = "contract"
"""The deployment that the envelope is of."""
SSH_FROM = "192.0.2.7/32"
ODD = "Ünïcode/ <&> *? 日本 \u202e\"'$(id)_" * 12


@dataclass
class AwsCloud(EmulatedCloud):
    emulation: Emulation = field(kw_only=True)

    def described(self, uids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Instances by uid, as EC2 describes those that are not gone."""
        live = ["pending", "running", "shutting-down", "stopping", "stopped"]
        pages = (
            self.emulation.client()
            .get_paginator("describe_instances")
            .paginate(
                Filters=[
                    {"Name": f"tag:{tags.UID}", "Values": list(uids)},
                    {"Name": "instance-state-name", "Values": live},
                ]
            )
        )
        found = [i for page in pages for r in page["Reservations"] for i in r["Instances"]]
        return {labels(instance)[tags.UID]: instance for instance in found}

    def volume(self, instance: Mapping[str, Any]) -> Mapping[str, Any]:
        """The only one of the instance."""
        (mapping,) = instance["BlockDeviceMappings"]
        assert mapping["Ebs"]["DeleteOnTermination"]
        ids = [mapping["Ebs"]["VolumeId"]]
        (volume,) = self.emulation.client().describe_volumes(VolumeIds=ids)["Volumes"]
        found: Mapping[str, Any] = volume
        return found


@pytest.fixture(scope="module")
def applied(
    running_emulation: Emulation,
    aws_network: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Applied]:
    folder = tmp_path_factory.mktemp("contract")
    more = {
        "TANGO_CLOUD_AWS__SSH_FROM": f'["{SSH_FROM}"]',
        "TANGO_CLOUD_AWS__INSTANCE_TYPES": '["t3*"]',
        **aws_network,
    }
    deployment = make_aws_deployment(folder, running_emulation, folder / "state", OWNER, **more)
    with envelope_applied(deployment) as applied:
        yield applied


@pytest.fixture
def cloud(emulation: Emulation, applied: Applied, tmp_path: Path) -> Iterator[AwsCloud]:
    cloud = AwsCloud(
        applied.provider,
        applied.workspaces,
        tmp_path / "stacks",
        spoil=spoil_instance_type,
        gone_within=90,
        brief=dt.timedelta(seconds=45),
        emulation=emulation,
        applied=applied.envelope,
        owner=OWNER,
    )
    yield cloud
    if not cloud.made:
        return
    ids = [instance["InstanceId"] for instance in cloud.described(cloud.made).values()]
    cloud.provider.terminate(ids)
    deadline = time.monotonic() + cloud.gone_within
    while cloud.described(cloud.made) or any(h["instance_id"] in ids for h in emulation.hosts()):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def spoil_instance_type(request: MachineRequest) -> MachineRequest:
    return replace(request, offer=replace(request.offer, instance_type="t3.enormous"))


def labels(described: Mapping[str, Any]) -> Mapping[str, str]:
    """Its tags, without those that EC2 itself has put there."""
    found = {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}
    return {key: text for key, text in found.items() if not key.startswith("aws:")}


class TestAwsProvider(ProviderContract):
    @pytest.mark.slow
    def test_waves_do_not_wait_for_each_other_and_deployments_see_their_own(
        self, cloud: Cloud
    ) -> None:
        super().test_waves_do_not_wait_for_each_other_and_deployments_see_their_own(cloud)

    @pytest.mark.slow
    def test_an_interrupted_wave_is_removed_like_any_other(self, cloud: Cloud) -> None:
        super().test_an_interrupted_wave_is_removed_like_any_other(cloud)


def test_a_machine_is_tagged_encrypted_and_ends_when_it_shuts_down(cloud: AwsCloud) -> None:
    wave = cloud.wave("prod", 1)
    assert wave.failure is None
    (uid,) = wave.uids
    instance = cloud.described([uid])[uid]
    expected = {**wave.requests[0].tags, "Name": "prod-1000-pool"}
    assert labels(instance) == expected
    assert "KeyName" not in instance
    assert "IamInstanceProfile" not in instance
    assert "PublicIpAddress" not in instance
    assert "InstanceLifecycle" not in instance
    (interface,) = instance["NetworkInterfaces"]
    assert {group["GroupId"] for group in interface["Groups"]} == {
        cloud.applied["security_group_id"]
    }
    volume = cloud.volume(instance)
    assert (volume["VolumeType"], volume["Encrypted"]) == ("gp3", True)
    assert labels(volume) == expected
    assert cloud.emulation.calls()["ec2:CreateTags"] == 0, "tags go in the creating call"
    shutdown = cloud.emulation.client().describe_instance_attribute(
        InstanceId=instance["InstanceId"], Attribute="instanceInitiatedShutdownBehavior"
    )
    assert shutdown["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"


def test_the_envelope_lets_nobody_in_but_who_was_named(cloud: AwsCloud) -> None:
    ec2, envelope = cloud.emulation.client(), cloud.applied
    (group,) = ec2.describe_security_groups(GroupIds=[envelope["security_group_id"]])[
        "SecurityGroups"
    ]
    (rule,) = group["IpPermissions"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 22, 22)
    assert [entry["CidrIp"] for entry in rule["IpRanges"]] == [SSH_FROM]
    assert not rule.get("Ipv6Ranges")
    assert not rule.get("PrefixListIds")
    assert not rule.get("UserIdGroupPairs")
    assert labels(group)[tags.DEPLOYMENT] == OWNER


def test_the_launch_template_asks_for_the_second_metadata_service(cloud: AwsCloud) -> None:
    (version,) = cloud.emulation.client().describe_launch_template_versions(
        LaunchTemplateId=cloud.applied["launch_template_id"],
        Versions=[cloud.applied["launch_template_version"]],
    )["LaunchTemplateVersions"]
    data = version["LaunchTemplateData"]
    assert data["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "HttpProtocolIpv6": "disabled",
        "InstanceMetadataTags": "disabled",
    }
    assert data["InstanceInitiatedShutdownBehavior"] == "terminate"
    for absent in ("KeyName", "IamInstanceProfile", "UserData", "NetworkInterfaces"):
        assert not data.get(absent)
    tagged = {s["ResourceType"]: labels(s)[tags.DEPLOYMENT] for s in data["TagSpecifications"]}
    assert tagged["network-interface"] == OWNER


def test_long_and_odd_names_are_taken_also_in_the_spot_market(cloud: AwsCloud) -> None:
    deployment, name = (ODD * 2)[:300], ODD[:300]

    def on_spot(request: MachineRequest) -> MachineRequest:
        return replace(request, offer=replace(request.offer, market=Market.SPOT))

    wave = cloud.wave(deployment, 1, name=name, change=on_spot)
    assert wave.failure is None
    (uid,) = wave.uids
    instance = cloud.described([uid])[uid]
    assert instance["InstanceLifecycle"] == "spot"
    assert re.fullmatch(r"[\w .:/=+@-]{256}", labels(instance)["Name"])
    for tag, text in ((tags.DEPLOYMENT, deployment), (tags.NAME, name)):
        assert labels(instance)[tag] == tags.encode(text)
        assert "_h_" in labels(instance)[tag]
    (listed,) = cloud.provider.instances(deployment)
    assert listed.uid == uid
    assert listed.key.deployment == deployment
    assert cloud.provider.instances(deployment[:-1]) == []
    assert cloud.provider.instances(deployment[:-1] + "x") == []
