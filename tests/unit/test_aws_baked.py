"""Baked images on EC2, from answers as it gives them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from botocore.stub import ANY, Stubber

from tango_cloud.core import tags
from tango_cloud.core.errors import ConfigurationError, ProviderUnavailable
from tango_cloud.core.model import Shape
from tango_cloud.core.sections import AwsSettings
from tango_cloud.providers import tagged
from tango_cloud.providers.aws import AwsProvider
from tango_cloud.providers.aws.clients import Clients
from tango_cloud.providers.aws.images import Images
from tango_cloud.providers.protocol import Baker, Recipe

pytestmark = pytest.mark.usefixtures("aws_configuration")

RECIPE = Recipe("Course 1.img", "ubuntu (24.04)", "ab" * 32)
CREATED = dt.datetime(2030, 1, 31, 11, tzinfo=dt.UTC)
LABELS = {
    "Name": RECIPE.name,
    tags.DEPLOYMENT: "prod",
    tags.BAKE: "0123456789ab",
    tags.BASE: RECIPE.base,
    tags.DIGEST: RECIPE.digest,
}


@pytest.fixture
def clients() -> Clients:
    return Clients("us-east-1", None)


@pytest.fixture
def stub(clients: Clients) -> Iterator[Stubber]:
    with Stubber(clients.ec2) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def provider(clients: Clients) -> AwsProvider:
    return AwsProvider(AwsSettings(), "prod", clients=clients)


def image(image_id: str, state: str = "available", day: int = 1, **changes: str | None) -> Any:
    return {
        "ImageId": image_id,
        "State": state,
        "Name": f"own-{image_id}",
        "CreationDate": f"2030-01-{day:02}T00:00:00.000Z",
        "Tags": tag_list(**changes),
    }


def snapshot(snapshot_id: str, size: int | None = None, **changes: str | None) -> Any:
    more = {} if size is None else {"FullSnapshotSizeInBytes": size}
    return {
        "SnapshotId": snapshot_id,
        "StartTime": CREATED,
        "Tags": tag_list(**changes),
        **more,
    }


def tag_list(**changes: str | None) -> list[Mapping[str, str]]:
    """`changes` are to LABELS, None takes one away."""
    labels = LABELS | {name.replace("_", "-"): text for name, text in changes.items()}
    return [{"Key": key, "Value": text} for key, text in labels.items() if text is not None]


def of_images(stub: Stubber, *found: Any, filters: object = ANY) -> None:
    expected = {"Owners": ["self"], "Filters": filters, "IncludeDisabled": True}
    stub.add_response("describe_images", {"Images": list(found)}, expected)


def of_snapshots(stub: Stubber, *found: Any, filters: object = ANY) -> None:
    expected = {"OwnerIds": ["self"], "Filters": filters, "MaxResults": 500}
    stub.add_response("describe_snapshots", {"Snapshots": list(found)}, expected)


def only(key: str, *values: str) -> list[Mapping[str, object]]:
    return [{"Name": key, "Values": list(values)}]


def test_image_and_snapshots_are_tagged_in_the_creating_call(provider: AwsProvider) -> None:
    as_baker: object = provider
    assert isinstance(as_baker, Baker)
    orders = []
    events = provider._clients.ec2.meta.events
    events.register(
        "provide-client-params.ec2.CreateImage",
        lambda params, **_: orders.append(dict(params)),
    )
    with Stubber(provider._clients.ec2) as stub:
        for number in range(2):
            stub.add_response("create_image", {"ImageId": f"ami-0{number}"})
        assert [provider.bake("i-0a", "Prod", RECIPE) for _ in range(2)] == ["ami-00", "ami-01"]
    for order in orders:
        assert order["InstanceId"] == "i-0a"
        assert "NoReboot" not in order
        labels = [
            {tag["Key"]: tag["Value"] for tag in specification["Tags"]}
            for specification in order["TagSpecifications"]
        ]
        assert [s["ResourceType"] for s in order["TagSpecifications"]] == ["image", "snapshot"]
        assert labels[0] == labels[1]
        token = labels[0].pop(tags.BAKE)
        expected = LABELS | {tags.DEPLOYMENT: tags.encode("Prod")}
        del expected[tags.BAKE]
        assert labels[0] == expected
        assert order["Name"] == f"Course 1.img-{token}"
        assert not tagged.is_part("Prod", labels[0])
    assert orders[0]["Name"] != orders[1]["Name"], "there is only one of a name"


@pytest.mark.parametrize("name", ["", "ami-0a", "tab\t", "é?", "x" * 257])
def test_a_name_that_jobs_could_not_ask_for_is_refused(provider: AwsProvider, name: str) -> None:
    with pytest.raises(ConfigurationError, match="image"):
        provider.bake("i-0a", "prod", Recipe(name, "base", "ab"))


def test_an_own_name_is_one_that_ec2_takes(provider: AwsProvider, stub: Stubber) -> None:
    names = []
    provider._clients.ec2.meta.events.register(
        "provide-client-params.ec2.CreateImage",
        lambda params, **_: names.append(params["Name"]),
    )
    stub.add_response("create_image", {"ImageId": "ami-0a"})
    provider.bake("i-0a", "prod", Recipe("ü:=+@" + "x" * 200, "base", "ab"))
    assert re.fullmatch(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}", names[0])


def test_an_image_whose_answer_was_lost_is_found_by_its_own_name(
    provider: AwsProvider, stub: Stubber
) -> None:
    stub.add_client_error("create_image", "InvalidAMIName.Duplicate", "in use")
    of_images(stub, image("ami-0a", "pending"))
    assert provider.bake("i-0a", "prod", RECIPE) == "ami-0a"


def test_all_images_are_listed_with_what_is_left_of_removed_ones(
    provider: AwsProvider, stub: Stubber
) -> None:
    of_snapshots(
        stub,
        snapshot("snap-1", 1000),
        snapshot("snap-2", 500),
        snapshot("snap-3", 700, tango_bake="left"),
        snapshot("snap-4", tango_bake="other"),
        snapshot("snap-5", tango_bake=None),
        filters=only("tag:tango-deployment", "prod"),
    )
    of_images(
        stub,
        image("ami-1"),
        image("ami-2", "pending", 2, tango_bake="other"),
        {
            **image("ami-3", "failed", 3, tango_bake="third"),
            "StateReason": {"Code": "Client.X", "Message": "no key to encrypt it by"},
        },
        image("ami-6", "invalid", 2, tango_bake="fourth"),
        image("ami-4", "deregistered", 4, tango_bake="left"),
        image("ami-5", day=5, tango_bake=None),
        filters=only("tag:tango-deployment", "prod"),
    )
    found = provider.baked("prod")
    assert [(one.id, one.ready, one.size_bytes, one.failure) for one in found] == [
        ("snap-3", False, 700, ""),
        ("ami-3", False, None, "no key to encrypt it by"),
        ("ami-6", False, None, "EC2 calls it invalid"),
        ("ami-2", False, None, ""),
        ("ami-1", True, 1500, ""),
    ]
    assert {one.recipe for one in found} == {RECIPE}
    assert found[0].created == CREATED
    assert found[-1].created == dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


def test_an_image_goes_with_its_snapshots_and_gone_is_success(
    provider: AwsProvider, stub: Stubber
) -> None:
    of_images(
        stub,
        image("ami-1"),
        image("ami-2", tango_bake="second"),
        image("ami-9", tango_bake=None),
        filters=only("image-id", "ami-1", "ami-2", "ami-9", "snap-9"),
    )
    of_snapshots(
        stub,
        snapshot("snap-9", tango_bake="left"),
        filters=only("snapshot-id", "ami-1", "ami-2", "ami-9", "snap-9"),
    )
    of_snapshots(
        stub,
        snapshot("snap-1"),
        snapshot("snap-2", tango_bake="second"),
        filters=only("tag:tango-bake", LABELS[tags.BAKE], "second"),
    )
    stub.add_client_error("deregister_image", "InvalidAMIID.Unavailable")
    stub.add_response("deregister_image", {}, {"ImageId": "ami-2"})
    stub.add_response("delete_snapshot", {}, {"SnapshotId": "snap-9"})
    stub.add_client_error("delete_snapshot", "InvalidSnapshot.NotFound")
    stub.add_response("delete_snapshot", {}, {"SnapshotId": "snap-2"})
    provider.remove_images(["snap-9", "ami-2", "ami-1", "ami-9", "ami-1"])


def test_each_is_tried_before_a_failure_is_told(provider: AwsProvider, stub: Stubber) -> None:
    of_images(stub, image("ami-1"))
    of_snapshots(stub)
    of_snapshots(stub, snapshot("snap-1"), snapshot("snap-2"))
    stub.add_response("deregister_image", {})
    stub.add_client_error("delete_snapshot", "InvalidSnapshot.InUse")
    stub.add_response("delete_snapshot", {}, {"SnapshotId": "snap-2"})
    with pytest.raises(ProviderUnavailable, match="InUse"):
        provider.remove_images(["ami-1"])


def test_nothing_is_asked_to_remove_nothing(provider: AwsProvider, stub: Stubber) -> None:
    provider.remove_images([])


def listing(stub: Stubber, owners: list[str], filters: dict[str, list[str]], *found: Any) -> None:
    conditions = [{"Name": "state", "Values": ["available"]}]
    conditions += [{"Name": key, "Values": list(values)} for key, values in filters.items()]
    expected = {"Owners": owners, "ImageIds": [], "Filters": conditions}
    stub.add_response("describe_images", {"Images": list(found)}, expected)


OURS = {f"tag:{tags.DEPLOYMENT}": ["prod"]}
PLAIN: Mapping[str, Any] = dict.fromkeys(("tango_deployment", "tango_bake", "tango_digest"))
"""Changes that make an image one that nobody baked."""


def test_baked_images_are_listed_last_and_those_of_others_not(
    clients: Clients, stub: Stubber
) -> None:
    base = image("ami-0", day=1, **{**PLAIN, "Name": "base"})
    baked = [image("ami-1", day=2), image("ami-2", day=3, Name="other")]
    theirs = image("ami-3", day=4, tango_deployment="prod-2", Name="theirs")
    listing(stub, ["self"], {}, base, *baked, theirs)
    listing(stub, ["self"], OURS, *baked, theirs)
    images = Images(clients, ["self"], "prod")
    assert images.names() == ["base", "other", RECIPE.name, "base.img", "other.img"]
    assert images.find("").image_id == "ami-0"


def test_the_newest_baked_image_is_taken_rather_than_another_of_its_name(
    clients: Clients, stub: Stubber
) -> None:
    """Wherever else images come from, and however new the other one is."""
    values = [RECIPE.name, "Course 1"]
    newer = image("ami-9", day=9, **PLAIN)
    theirs = image("ami-8", day=8, tango_deployment="prod-2")
    for key in ("tag:Name", "name"):
        listing(stub, ["amazon"], {key: values}, newer, theirs)
    baked = [image("ami-1", day=1), image("ami-2", day=2)]
    listing(stub, ["self"], {**OURS, "tag:Name": values}, *baked)
    assert Images(clients, ["amazon"], "prod").find(RECIPE.name).image_id == "ami-2"


def test_what_was_known_of_images_is_forgotten_when_there_are_others(
    provider: AwsProvider, stub: Stubber
) -> None:
    listing(stub, ["self"], {})
    listing(stub, ["self"], OURS)
    assert provider.images() == []
    of_snapshots(stub)
    of_images(stub, image("ami-1"))
    assert provider.baked("prod")
    listing(stub, ["self"], {}, image("ami-1"))
    listing(stub, ["self"], OURS, image("ami-1"))
    assert provider.images() == [RECIPE.name]
    assert provider.images() == [RECIPE.name]


def test_one_in_the_making_is_not_to_be_had(provider: AwsProvider, stub: Stubber) -> None:
    """EC2 itself is asked for those that are available only."""
    for filters in ({"tag:Name": ["new", "new.img"]}, {"name": ["new", "new.img"]}):
        listing(stub, ["self"], filters)
    listing(stub, ["self"], {**OURS, "tag:Name": ["new", "new.img"]})
    listing(stub, ["self"], {})
    listing(stub, ["self"], OURS)
    with pytest.raises(ConfigurationError, match="there is no 'new'"):
        provider.offers(Shape("new"))
