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
    AuthenticationError,
    ConfigurationError,
    NextMove,
    ProviderUnavailable,
)
from tango_cloud.core.model import InstanceStatus, MachineKey, MachineRequest, Offer, Shape
from tango_cloud.core.settings import load
from tango_cloud.providers.aws import AwsOptions, AwsProvider, from_settings, inventory
from tango_cloud.providers.aws import network as network_module
from tango_cloud.providers.aws.clients import Clients
from tango_cloud.providers.aws.errors import TerminationProtected
from tango_cloud.providers.aws.inventory import Place
from tango_cloud.providers.aws.provider import name_tag
from tango_cloud.providers.protocol import Diagnosable, Provider

UID = "5f0a6c0e91d2"
CREATED = dt.datetime(2030, 1, 31, 11, tzinfo=dt.UTC)
EXPIRES = dt.datetime(2030, 1, 31, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.fixture(autouse=True)
def aws_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No account of the person who runs the tests; gives the configuration file."""
    path = tmp_path / "aws-config"
    for name in ("REGION", "DEFAULT_REGION", "PROFILE", "ENDPOINT_URL", "SESSION_TOKEN"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return path


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
    return AwsProvider(AwsOptions("prod"), clients)


def described(instance_id: str = "i-0a", /, **changes: str | None) -> Any:
    """An instance as DescribeInstances has it; `changes` are to its tags, None takes one away."""
    labels = {
        tags.DEPLOYMENT: "prod",
        tags.ID: "1001",
        tags.NAME: "a_20_b",
        tags.UID: UID,
        tags.WAVE: "w1",
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
    assert (found.instance_id, found.uid, found.wave) == ("i-0a", UID, "w1")
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
    labels = inventory.labels_of(instance)
    assert inventory.read("prod", instance, labels, Place(""), DAY)[0].status is status


@pytest.mark.parametrize(
    "damage",
    [
        {"tango_id": None},
        {"tango_id": "one"},
        {"tango_id": "²"},
        {"tango_uid": ""},
        {"tango_wave": "../../x"},
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
    assert sound.uid == UID
    assert damaged.instance_id == "i-0b"
    assert damaged.key.deployment == "prod"
    assert damaged.key.id in {0, 1001}
    assert damaged.uid in {UID, "i-0b"}
    assert damaged.wave in {"", "w1"}
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
        AwsProvider(AwsOptions("prod", reach=path), clients).instances("prod")


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
    image = {"ImageId": "ami-0a", "RootDeviceName": "r", "Architecture": "x86_64"}
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
    fresh = AwsProvider(AwsOptions("prod", ssh_from=("192.0.2.7/32",))).envelope_variables("Prod")
    assert fresh == {
        "deployment": "_50_rod",
        "network_cidr": "10.87.0.0/20",
        "zones": [],
        "network": None,
        "ssh_from": ["192.0.2.7/32"],
        "public_address": False,
    }
    options = AwsOptions("p", vpc_id="vpc-1", subnet_ids=("subnet-1",), ssh_from=("10.0.0.0/8",))
    network = AwsProvider(options).envelope_variables("p")["network"]
    assert network == {"vpc_id": "vpc-1", "subnet_ids": ["subnet-1"]}


def test_ssh_is_open_to_this_host_alone_or_it_must_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "_own_address", lambda: ["192.0.2.7/32"])
    assert network_module.ssh_from(()) == ["192.0.2.7/32"]
    assert network_module.ssh_from(("10.0.0.0/8",)) == ["10.0.0.0/8"]
    monkeypatch.setattr(network_module, "_own_address", list)
    with pytest.raises(ConfigurationError, match=r"aws\.ssh_from"):
        network_module.ssh_from(())


def test_the_region_in_terraforms_order(
    aws_configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws_configuration.write_text("[default]\nregion = r1\n[profile other]\nregion = r2\n")

    def region(setting: str | None = None, profile: str | None = None) -> tuple[str, str]:
        found = Clients(setting, profile).region
        return found.name, found.source

    assert region() == ("r1", "from the profile default")
    assert region(profile="other") == ("r2", "from the profile other")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "r3")
    assert region() == ("r3", "from AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "r4")
    assert region() == ("r4", "from AWS_REGION")
    assert region("r5") == ("r5", "from aws.region")


def test_terraform_goes_where_boto_goes(aws_configuration: Path) -> None:
    aws_configuration.write_text("[profile other]\nregion = r2\n")
    assert Clients("r1", None).environment() == {"AWS_REGION": "r1"}
    other = Clients(None, "other").environment()
    assert (other["AWS_REGION"], other["AWS_PROFILE"]) == ("r2", "other")
    # The plugin would take these keys before the profile, boto3 would not.
    assert other["AWS_ACCESS_KEY_ID"] == ""
    assert other["AWS_SECRET_ACCESS_KEY"] == ""


def test_nothing_is_asked_before_the_first_question_which_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigurationError, match=r"no region is set.*us-east-1"):
        AwsProvider(AwsOptions("prod")).instances("prod")
    with pytest.raises(ConfigurationError, match="nobody"):
        AwsProvider(AwsOptions("prod", profile="nobody")).environment()
    with pytest.raises(ConfigurationError, match="AWS_REGION"):
        AwsProvider(AwsOptions("prod", region="US East")).images()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(ConfigurationError, match="AWS_ENDPOINT_URL"):
        AwsProvider(AwsOptions("prod", region="us-east-1")).images()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    nameless = AwsProvider(AwsOptions("prod", region="us-east-1"))
    with pytest.raises(AuthenticationError, match="aws sso login"):
        nameless.instances("prod")
    region, identity = nameless.diagnose()
    assert (region.ok, identity.ok) == (True, False)
    assert "AWS_PROFILE" in identity.remedy
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half")
    with pytest.raises(AuthenticationError, match="AWS_SECRET_ACCESS_KEY"):
        AwsProvider(AwsOptions("prod", region="us-east-1")).terminate(["i-0a"])


@pytest.mark.parametrize(
    ("aws", "fault"),
    [
        ({"public_address": True}, r"aws\.public_address: .*aws\.ssh_from"),
        ({"vpc_id": "vpc-1"}, r"aws\.subnet_ids: .*aws\.vpc_id"),
        ({"subnet_ids": ["subnet-1"]}, r"aws\.subnet_ids: .*aws\.vpc_id"),
        ({"vpc_id": "my network", "subnet_ids": ["subnet-1"]}, r"aws\.vpc_id: "),
        ({"network_cidr": "10.0.0.0"}, r"aws\.network_cidr: .*/16 to /25"),
        ({"network_cidr": "10.0.0.0/8"}, r"aws\.network_cidr: .*/16 to /25"),
        ({"network_cidr": "10.87.0.1/20"}, r"aws\.network_cidr: "),
        ({"ssh_from": ["0.0.0.0/0"]}, r"aws\.ssh_from\.0: .*/8"),
        ({"ssh_from": ["192.0.2.7/32", "::/0"]}, r"aws\.ssh_from\.1: .*/32"),
        ({"ssh_from": ["here"]}, r"aws\.ssh_from\.0: "),
        ({"markets": ["reserved"]}, r"aws\.markets\.0: .*'on-demand' or 'spot'"),
        ({"instance_types": []}, r"aws\.instance_types: "),
        ({"endpoint": "x"}, r"aws\.endpoint: unknown setting"),
    ],
)
def test_faults_of_the_settings(aws: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        load({"aws": aws})


def test_the_settings_reach_the_provider() -> None:
    aws = {"ssh_from": ["2001:db8::7/128"], "public_address": True, "zones": ["us-east-1a"]}
    made = from_settings(load({"prefix": "prod", "aws": aws}))
    variables = made.envelope_variables("prod")
    assert made.compress
    assert (variables["zones"], variables["public_address"]) == (["us-east-1a"], True)
