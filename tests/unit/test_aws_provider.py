"""The AWS provider without AWS: its inventory, its orders, its settings."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber

from tango_cloud.core import tags
from tango_cloud.core.errors import (
    ConfigurationError,
    NextMove,
    ProviderUnavailable,
)
from tango_cloud.core.model import InstanceStatus, MachineKey, MachineRequest, Offer, Shape
from tango_cloud.core.sections import AwsSettings
from tango_cloud.providers.aws import AwsProvider, inventory
from tango_cloud.providers.aws.clients import Clients
from tango_cloud.providers.aws.errors import TerminationProtected
from tango_cloud.providers.aws.provider import name_tag
from tango_cloud.providers.protocol import Diagnosable, Provider
from tango_cloud.providers.tagged import Place

pytestmark = pytest.mark.usefixtures("aws_configuration")

UID = "5f0a6c0e91d2"
WAVE = "91d25f0a6c0e"
CREATED = dt.datetime(2030, 1, 31, 11, tzinfo=dt.UTC)
EXPIRES = dt.datetime(2030, 1, 31, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.fixture
def clients() -> Clients:
    return Clients("us-east-1", None)


@pytest.fixture
def stub(clients: Clients) -> Iterator[Stubber]:
    """Answers in the place of EC2; every answer must be asked for."""
    with Stubber(clients.ec2) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def provider(clients: Clients) -> AwsProvider:
    return AwsProvider(AwsSettings(), "prod", clients=clients)


def described(instance_id: str = "i-0a", /, **changes: str | None) -> Any:
    """An instance as DescribeInstances has it; `changes` are to its tags, None takes one away."""
    labels = {
        tags.DEPLOYMENT: "prod",
        tags.ID: "1001",
        tags.NAME: "a_20_b",
        tags.UID: UID,
        tags.WAVE: WAVE,
        tags.IMAGE: tags.encode("course.img"),
        tags.CREATED: "1896087600",
        tags.EXPIRES: str(int(EXPIRES.timestamp())),
    } | {name.replace("_", "-"): text for name, text in changes.items()}
    return {
        "InstanceId": instance_id,
        "State": {"Code": 16, "Name": "running"},
        "LaunchTime": CREATED,
        "Placement": {"AvailabilityZone": "us-east-1b"},
        "InstanceType": "t3.small",
        "PrivateIpAddress": "10.87.0.7",
        "PublicIpAddress": "203.0.113.7",
        "Tags": [{"Key": k, "Value": v} for k, v in labels.items() if v is not None],
    }


def answer(stub: Stubber, *pages: list[Any], deployment: str = "prod") -> None:
    for number, page in enumerate(pages):
        expected = {
            "Filters": [
                {"Name": "tag:tango-deployment", "Values": [deployment]},
                {
                    "Name": "instance-state-name",
                    "Values": ["pending", "running", "shutting-down", "stopping", "stopped"],
                },
            ],
            "MaxResults": 1000,
        } | ({"NextToken": str(number)} if number else {})
        more = {"NextToken": str(number + 1)} if number + 1 < len(pages) else {}
        stub.add_response(
            "describe_instances", {"Reservations": [{"Instances": page}], **more}, expected
        )


def test_it_satisfies_the_protocols(provider: AwsProvider) -> None:
    as_provider: Provider = provider
    assert isinstance(as_provider, Diagnosable)
    assert as_provider.sudo


def test_an_instance_is_what_ec2_says(provider: AwsProvider, stub: Stubber) -> None:
    answer(stub, [described()])
    (found,) = provider.instances("prod")
    assert found.key == MachineKey("prod", 1001, "a b")
    assert (found.instance_id, found.uid, found.wave) == ("i-0a", UID, WAVE)
    assert (found.address, found.port, found.username) == ("10.87.0.7", 22, "tango")
    assert (found.zone, found.instance_type) == ("us-east-1b", "t3.small")
    assert (found.image, found.status) == ("course.img", InstanceStatus.RUNNING)
    assert (found.created, found.expires) == (CREATED, EXPIRES)


def test_every_page_is_read_and_what_is_not_ours_is_dropped(
    provider: AwsProvider, stub: Stubber
) -> None:
    others = [
        described("i-0b", tango_deployment="prod-2"),
        described("i-0c", tango_deployment="Prod"),
        {k: v for k, v in described("i-0d").items() if k != "Tags"},
    ]
    answer(stub, [described("i-0a"), *others], [], [described("i-0e")])
    assert [i.instance_id for i in provider.instances("prod")] == ["i-0a", "i-0e"]
    answer(stub, [], deployment="_50_rod")
    assert provider.instances("Prod") == []


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("pending", InstanceStatus.PENDING),
        ("running", InstanceStatus.RUNNING),
        ("shutting-down", InstanceStatus.STOPPING),
        ("stopping", InstanceStatus.STOPPING),
        # Not on its way out: it is to be terminated yet.
        ("stopped", InstanceStatus.UNKNOWN),
        ("terminated", InstanceStatus.GONE),
        ("invented-tomorrow", InstanceStatus.UNKNOWN),
    ],
)
def test_statuses(state: str, status: InstanceStatus) -> None:
    instance = described() | {"State": {"Code": 0, "Name": state}}
    assert inventory.read(instance, Place("")).status is status


@pytest.mark.parametrize(
    "damage",
    [
        {"tango_id": None},
        {"tango_id": "one"},
        {"tango_id": "²"},
        {"tango_uid": ""},
        {"tango_uid": UID[:-1]},
        {"tango_uid": UID.upper()},
        {"tango_wave": "../../x"},
        {"tango_wave": "by-hand"},
        {"tango_name": None},
        {"tango_expires": "9" * 15},
        {"tango_expires": "-1"},
        dict.fromkeys(("tango_id", "tango_uid", "tango_wave", "tango_name", "tango_expires")),
    ],
)
def test_damaged_tags_neither_hide_it_nor_its_neighbours(
    provider: AwsProvider,
    stub: Stubber,
    caplog: pytest.LogCaptureFixture,
    damage: dict[str, str | None],
) -> None:
    for _ in range(2):
        answer(stub, [described("i-0b", **damage), described("i-0a")])
    with caplog.at_level(logging.WARNING):
        damaged, sound = provider.instances("prod")
        provider.instances("prod")
    assert (sound.uid, sound.faults) == (UID, ())
    assert {fault.replace("-", "_") for fault in damaged.faults} == set(damage)
    assert damaged.instance_id == "i-0b"
    assert damaged.key.deployment == "prod"
    assert damaged.key.id in {0, 1001}
    assert damaged.uid in {UID, "i-0b"}
    assert damaged.wave in {"", WAVE}
    assert damaged.expires in {EXPIRES, CREATED + DAY}
    (warning,) = caplog.records
    assert "i-0b" in warning.getMessage(), "once, not with every listing"
    assert next(iter(damage)).replace("_", "-") in warning.getMessage()


def test_an_emulated_address_is_translated_and_unknown_until_it_can_be(tmp_path: Path) -> None:
    reach = {"10.87.0.7": {"address": "127.0.0.1", "port": 4722, "username": "me"}}
    place = inventory.place_of(described(), public=False, reach=reach)
    assert place == Place("127.0.0.1", 4722, "me")
    assert inventory.place_of(described(), public=False, reach={}).address == ""
    assert inventory.place_of(described(), public=True) == Place("203.0.113.7", 22, "tango")
    assert inventory.place_of({"InstanceId": "i-0a"}, public=False).address == ""


def test_a_damaged_reach_is_a_fault(clients: Clients, stub: Stubber, tmp_path: Path) -> None:
    path = tmp_path / "reach.json"
    path.write_text(json.dumps([]))
    answer(stub, [])
    with pytest.raises(ConfigurationError, match=r"aws\.reach"):
        AwsProvider(AwsSettings(reach=path), "prod", clients=clients).instances("prod")


def test_a_listing_that_breaks_off_is_an_error(provider: AwsProvider, stub: Stubber) -> None:
    answer(stub, [described()])
    stub.add_client_error("describe_instances", "RequestLimitExceeded")
    assert len(provider.instances("prod")) == 1
    with pytest.raises(ProviderUnavailable):
        provider.instances("prod")


def test_terminate_drops_what_is_gone_and_asks_again(provider: AwsProvider, stub: Stubber) -> None:
    stub.add_client_error(
        "terminate_instances",
        "InvalidInstanceID.NotFound",
        "The instance IDs 'i-0b, i-0c' do not exist",
        expected_params={"InstanceIds": ["i-0a", "i-0b", "i-0c", "odd"]},
    )
    stub.add_client_error(
        "terminate_instances",
        "InvalidInstanceID.Malformed",
        'Invalid id: "odd"',
        expected_params={"InstanceIds": ["i-0a", "odd"]},
    )
    stub.add_response("terminate_instances", {}, {"InstanceIds": ["i-0a"]})
    provider.terminate(["i-0c", "i-0a", "i-0b", "odd", "i-0a"])
    provider.terminate([])


def test_terminate_when_it_is_not_told_which_is_gone(provider: AwsProvider, stub: Stubber) -> None:
    for ids in (["i-0a", "i-0b"], ["i-0a"]):
        stub.add_client_error(
            "terminate_instances",
            "InvalidInstanceID.NotFound",
            "no such instance",
            expected_params={"InstanceIds": ids},
        )
    stub.add_response("terminate_instances", {}, {"InstanceIds": ["i-0b"]})
    provider.terminate(["i-0a", "i-0b"])


def test_terminate_says_what_is_protected_and_ends_the_rest(
    provider: AwsProvider, stub: Stubber
) -> None:
    stub.add_client_error(
        "terminate_instances",
        "OperationNotPermitted",
        "The instance 'i-0a' may not be terminated. Modify its 'disableApiTermination' instance "
        "attribute and try again.",
    )
    stub.add_response("terminate_instances", {}, {"InstanceIds": ["i-0b"]})
    with pytest.raises(TerminationProtected, match="disableApiTermination") as caught:
        provider.terminate(["i-0a", "i-0b"])
    assert caught.value.instance_ids == ("i-0a",)
    assert caught.value.next_move is NextMove.STOP


def test_every_chunk_is_tried(provider: AwsProvider, stub: Stubber) -> None:
    ids = [f"i-{number:05x}" for number in range(2500)]
    stub.add_response("terminate_instances", {}, {"InstanceIds": ids[:1000]})
    stub.add_client_error("terminate_instances", "RequestLimitExceeded")
    stub.add_response("terminate_instances", {}, {"InstanceIds": ids[2000:]})
    with pytest.raises(ProviderUnavailable, match="RequestLimitExceeded"):
        provider.terminate(reversed(ids))


def test_an_order_of_machines(provider: AwsProvider, stub: Stubber) -> None:
    image: dict[str, Any] = {"ImageId": "ami-0a", "RootDeviceName": "r", "Architecture": "x86_64"}
    image |= {"BlockDeviceMappings": [{"DeviceName": "r", "Ebs": {"VolumeSize": 10}}]}
    stub.add_response("describe_images", {"Images": [image]})
    key = MachineKey("prod", 1001, "course/ü")

    def ordered(disk_gib: int | None) -> Any:
        request = MachineRequest(
            UID,
            key,
            Shape("ami-0a", disk_gib=disk_gib),
            Offer("aws", "us-east-1", "us-east-1b", "t3.small"),
            {tags.DEPLOYMENT: "prod"},
            EXPIRES,
            "secret",
        )
        return provider.wave_machines([request])[UID]

    assert ordered(None) == {
        "image": "ami-0a",
        "instance_type": "t3.small",
        "zone": "us-east-1b",
        "market": "on-demand",
        "disk_gib": 10,
        "tags": {"tango-deployment": "prod", "Name": "prod-1001-course/ü"},
        "expires": "2030-01-31T12:00:00Z",
    }
    assert [ordered(size)["disk_gib"] for size in (5, 20)] == [10, 20]


def test_a_name_is_cut_and_cleaned_for_the_console() -> None:
    assert name_tag("prod-1-a_b.c:d/e=f+g@h i") == "prod-1-a_b.c:d/e=f+g@h i"
    assert name_tag("u\u0308\x00\n<b>'\"") == "ü---b---"
    assert len(name_tag("x" * 300)) == 256


def test_an_envelope_is_ordered_as_the_settings_say() -> None:
    fresh = AwsProvider(AwsSettings(ssh_from=("192.0.2.7/32",)), "prod").envelope_variables("Prod")
    assert fresh == {
        "deployment": "_50_rod",
        "network_cidr": "10.87.0.0/20",
        "zones": [],
        "network": None,
        "ssh_from": ["192.0.2.7/32"],
        "public_address": False,
    }
    settings = AwsSettings(vpc_id="vpc-1", subnet_ids=("subnet-1",), ssh_from=("10.0.0.0/8",))
    network = AwsProvider(settings, "p").envelope_variables("p")["network"]
    assert network == {"vpc_id": "vpc-1", "subnet_ids": ["subnet-1"]}
