"""What machines may leave behind, without a cloud: all of it is found, and only that."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from botocore.stub import Stubber

from tango_cloud.core import tags
from tango_cloud.core.errors import ProviderUnavailable, ProvisioningError
from tango_cloud.providers.aws import strays as aws_strays
from tango_cloud.providers.aws.clients import Clients as AwsClients
from tango_cloud.providers.gcp import strays as gcp_strays
from tango_cloud.providers.gcp.clients import Clients as GcpClients
from tango_cloud.providers.gcp.clients import Patience
from tango_cloud.providers.protocol import Stray

from .google_api import PROJECT, Answer, Google, error

CREATED = dt.datetime(2030, 1, 31, 11, tzinfo=dt.UTC)
LABELS = {tags.DEPLOYMENT: "prod", tags.UID: "5f0a6c0e91d2", tags.WAVE: "91d25f0a6c0e"}
NEIGHBOURS = [
    {},
    LABELS | {tags.DEPLOYMENT: "prod-2"},
    LABELS | {tags.UID: "mine"},
    LABELS | {tags.WAVE: ""},
    {tags.DEPLOYMENT: "prod"},
]
INTERFACE = {tags.DEPLOYMENT: "prod", "Name": "tango-prod"}


@pytest.fixture
def ec2(aws_configuration: object) -> AwsClients:
    return AwsClients("us-east-1", None)


def google_clients() -> GcpClients:
    return GcpClients(PROJECT, Patience(1, 0.0, first_pause=1e-6))


def tag_list(labels: dict[str, str]) -> Any:
    return [{"Key": key, "Value": text} for key, text in labels.items()]


def volume(name: str, labels: dict[str, str] = LABELS, state: str = "available") -> Any:
    return {"VolumeId": name, "State": state, "CreateTime": CREATED, "Tags": tag_list(labels)}


def interface(name: str, labels: dict[str, str], status: str = "available") -> Any:
    return {"NetworkInterfaceId": name, "Status": status, "TagSet": tag_list(labels)}


def disk(name: str, labels: dict[str, str] = LABELS, **more: Any) -> dict[str, Any]:
    zone = f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/zones/us-central1-b"
    made = CREATED.isoformat()
    return {"name": name, "zone": zone, "labels": labels, "creationTimestamp": made, **more}


def page(*disks: dict[str, Any], token: str = "", **more: Any) -> Answer:
    items = {"zones/us-central1-b": {"disks": list(disks)}}
    return {"items": items, **({"nextPageToken": token} if token else {}), **more}


def test_every_page_of_ec2_is_read_and_only_what_is_ours_and_detached_counts(
    ec2: AwsClients,
) -> None:
    filters = [
        {"Name": "tag:tango-deployment", "Values": ["prod"]},
        {"Name": "status", "Values": ["available"]},
    ]
    asked = {"Filters": filters, "MaxResults": 500}
    others = [volume(f"vol-{n}", labels) for n, labels in enumerate(NEIGHBOURS)]
    with Stubber(ec2.ec2) as stub:
        stub.add_response("describe_volumes", {"Volumes": others, "NextToken": "1"}, asked)
        found = [
            volume("vol-a"),
            volume("vol-b", state="in-use"),
            volume("vol-c", state="creating"),
        ]
        stub.add_response("describe_volumes", {"Volumes": found}, asked | {"NextToken": "1"})
        interfaces = [
            interface("eni-a", INTERFACE),
            interface("eni-b", INTERFACE, "in-use"),
            interface("eni-c", {tags.DEPLOYMENT: "prod"}),
            interface("eni-d", INTERFACE | {tags.DEPLOYMENT: "prod-2"}),
            interface("eni-e", {}),
        ]
        answer = {"NetworkInterfaces": interfaces}
        stub.add_response("describe_network_interfaces", answer, asked)
        assert aws_strays.find(ec2, "prod") == [
            Stray("vol-a", "volume", CREATED),
            Stray("eni-a", "network interface", None),
        ]
        stub.add_response("describe_volumes", {"Volumes": []}, asked)
        stub.add_client_error("describe_network_interfaces", "RequestLimitExceeded")
        with pytest.raises(ProviderUnavailable):
            aws_strays.find(ec2, "prod")
        stub.assert_no_pending_responses()


def test_ec2_is_asked_to_remove_each_and_what_is_absent_is_a_success(ec2: AwsClients) -> None:
    with Stubber(ec2.ec2) as stub:
        stub.add_client_error("delete_network_interface", "InvalidNetworkInterfaceID.NotFound")
        stub.add_client_error("delete_volume", "VolumeInUse", "vol-a is in use")
        stub.add_client_error("delete_volume", "InvalidVolume.NotFound")
        stub.add_response("delete_volume", {}, {"VolumeId": "vol-c"})
        with pytest.raises(ProvisioningError, match="vol-a is in use"):
            aws_strays.remove(ec2, ["vol-c", "vol-a", "eni-a", "vol-b", "vol-c"])
        stub.assert_no_pending_responses()


def test_every_page_of_google_is_read_and_only_what_is_ours_and_detached_counts(
    google: Google,
) -> None:
    others = [disk(f"other-{n}", labels) for n, labels in enumerate(NEIGHBOURS)]
    used = disk("used", users=["zones/us-central1-b/instances/tango-1"])
    of_a_region = {**disk("regional"), "zone": "", "region": "regions/us-central1"}
    google.answer("aggregated/disks", page(*others, token="1"), page(disk("a"), used, of_a_region))
    found = gcp_strays.find(google_clients(), "prod")
    assert found == [Stray("us-central1-b/a", "disk", CREATED)]
    asked = [request.query for request in google.asked]
    assert [query.get("pageToken") for query in asked] == [None, "1"]
    assert {query["filter"] for query in asked} == {'labels.tango-deployment="prod"'}
    hole: dict[str, Any] = {"unreachables": [f"projects/{PROJECT}/zones/us-central1-c"]}
    google.answer("aggregated/disks", page(disk("a"), **hole))
    with pytest.raises(ProviderUnavailable, match="us-central1-c"):
        gcp_strays.find(google_clients(), "prod")


def test_google_is_asked_to_remove_each_and_what_is_absent_is_a_success(google: Google) -> None:
    disks = "zones/us-central1-b/disks"
    refused = error(400, "resourceInUseByAnotherResource", "a is already being used")
    google.answer(f"{disks}/a", refused, method="DELETE")
    google.answer(f"{disks}/c", {"name": "operation-1", "status": "RUNNING"}, method="DELETE")
    with pytest.raises(ProviderUnavailable, match="already being used"):
        gcp_strays.remove(google_clients(), [f"us-central1-b/{name}" for name in "cba"])
    assert [request.path for request in google.asked] == [f"{disks}/{name}" for name in "abc"]
