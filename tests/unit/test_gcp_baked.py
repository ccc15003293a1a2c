"""Baked images on Compute Engine, from answers as it gives them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tango_cloud.core import tags
from tango_cloud.core.errors import (
    ConfigurationError,
    ProviderUnavailable,
    ProvisioningError,
    QuotaError,
)
from tango_cloud.core.sections import GcpSettings
from tango_cloud.providers import tagged
from tango_cloud.providers.gcp import GcpProvider
from tango_cloud.providers.gcp.clients import Clients, Patience
from tango_cloud.providers.protocol import Baker, Recipe

from .google_api import PROJECT, Google, error

RECIPE = Recipe("Course ü_1.img", "ubuntu-2404", "ab" * 32)
MACHINE = "us-central1-b/tango-5f0a6c0e91d2"
PATH = "zones/us-central1-b/instances/tango-5f0a6c0e91d2"
IMAGES = "global/images"
DISK = "projects/p/zones/us-central1-b/disks/d"


@pytest.fixture
def cloud(google: Google) -> Google:
    google.answer(f"{PATH}/stop", operation("RUNNING"), method="POST")
    google.answer("zones/us-central1-b/operations/o1/wait", operation("DONE"), method="POST")
    disks = [{"source": "other"}, {"source": DISK, "boot": True}]
    google.answer(PATH, {"name": "tango-5f0a6c0e91d2", "disks": disks})
    google.answer(IMAGES, operation("RUNNING"), method="POST")
    google.answer(IMAGES, {})
    return google


def operation(status: str, **more: Any) -> dict[str, Any]:
    return {"name": "o1", "status": status, "operationType": "stop", **more}


def provider(**settings: Any) -> GcpProvider:
    clients = Clients(PROJECT, Patience(1, 0.0, first_pause=1e-6))
    return GcpProvider(GcpSettings(**settings), "prod", clients=clients)


def image(name: str, status: str = "READY", day: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "status": status,
        "creationTimestamp": f"2030-01-{day:02}T00:00:00.000-08:00",
        "labels": {tags.DEPLOYMENT: "prod", tags.BAKE: "0123456789ab"},
        "description": json.dumps(
            {"name": RECIPE.name, "base": "ubuntu-2404", "digest": "ab" * 32}
        ),
        "archiveSizeBytes": "700",
        **changes,
    }


def plain(name: str, day: int = 1, **changes: Any) -> dict[str, Any]:
    """One that nobody baked."""
    return image(name, day=day, **({"labels": {}, "description": ""} | changes))


def test_the_machine_is_stopped_and_its_boot_disk_taken(cloud: Google) -> None:
    as_baker: object = provider()
    assert isinstance(as_baker, Baker)
    made = [as_baker.bake(MACHINE, "Prod", RECIPE) for _ in range(2)]
    assert made[0] != made[1], "there is only one of a name"
    order = [(request.method, request.path) for request in cloud.asked]
    assert order[:4] == [
        ("POST", f"{PATH}/stop"),
        ("POST", "zones/us-central1-b/operations/o1/wait"),
        ("GET", PATH),
        ("POST", IMAGES),
    ]
    sent = [request for request in cloud.asked if request.path == IMAGES]
    for name, request in zip(made, sent, strict=True):
        body = request.body
        assert body["name"] == name
        assert re.fullmatch(r"tango-course-1-img-[0-9a-f]{12}", name)
        assert body["sourceDisk"] == DISK
        assert json.loads(body["description"]) == {
            "name": RECIPE.name,
            "base": RECIPE.base,
            "digest": RECIPE.digest,
        }
        assert body["labels"][tags.DEPLOYMENT] == tags.encode("Prod")
        assert all(re.fullmatch(r"[a-z0-9_-]{0,63}", text) for text in body["labels"].values())
        assert not tagged.is_part("Prod", body["labels"])


@pytest.mark.parametrize("name", ["x" * 256, "日本", "-", "UPPER.IMG"])
def test_any_name_is_given_an_own_name_that_google_takes(cloud: Google, name: str) -> None:
    made = provider().bake(MACHINE, "prod", Recipe(name, "base", "ab"))
    assert re.fullmatch(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?", made)


def test_what_goes_wrong_while_it_is_stopped_or_taken_is_told(cloud: Google) -> None:
    for name in ("", "x" * 257):
        with pytest.raises(ConfigurationError, match="image"):
            provider().bake(MACHINE, "prod", Recipe(name, "base", "ab"))
    cloud.answer(IMAGES, error(403, "quotaExceeded"), method="POST")
    with pytest.raises(QuotaError):
        provider().bake(MACHINE, "prod", RECIPE)
    failed = {"error": {"errors": [{"code": "NO_SUCH", "message": "cannot stop"}]}}
    cloud.answer(f"{PATH}/stop", operation("DONE", **failed), method="POST")
    with pytest.raises(ProvisioningError, match="cannot stop"):
        provider().bake(MACHINE, "prod", RECIPE)
    cloud.answer(f"{PATH}/stop", operation("RUNNING"), method="POST")
    cloud.answer("zones/us-central1-b/operations/o1/wait", operation("RUNNING"), method="POST")
    with pytest.raises(ProviderUnavailable, match="does not stop"):
        provider().bake(MACHINE, "prod", RECIPE)


def test_every_page_of_images_is_listed_in_whatever_state(cloud: Google) -> None:
    theirs = image("theirs", labels={tags.DEPLOYMENT: "prod-2", tags.BAKE: "a"})
    unmarked = image("unmarked", labels={tags.DEPLOYMENT: "prod"})
    cloud.answer(
        IMAGES,
        {
            "items": [image("a"), image("b", "PENDING", 3, archiveSizeBytes="0")],
            "nextPageToken": "1",
        },
        {"items": [image("c", "FAILED", 2), image("d", "DELETING"), theirs, unmarked]},
    )
    found = provider().baked("prod")
    assert [(one.id, one.ready, one.size_bytes, one.failure) for one in found] == [
        ("b", False, None, ""),
        ("c", False, 700, "Google calls it FAILED"),
        ("a", True, 700, ""),
    ]
    assert {one.recipe for one in found} == {RECIPE}
    assert found[-1].created.isoformat() == "2030-01-01T08:00:00+00:00"
    assert cloud.asked[0].query["filter"] == 'labels.tango-deployment="prod"'


def test_a_list_that_cannot_be_had_is_no_empty_one(cloud: Google) -> None:
    cloud.answer(IMAGES, error(503, "backendError"))
    with pytest.raises(ProviderUnavailable):
        provider().baked("prod")


def test_only_baked_images_are_removed_and_gone_is_success(cloud: Google) -> None:
    cloud.answer(f"{IMAGES}/baked", image("baked"))
    cloud.answer(f"{IMAGES}/baked", operation("RUNNING"), method="DELETE")
    cloud.answer(f"{IMAGES}/plain", plain("plain"))
    cloud.answer(f"{IMAGES}/away", error(503, "backendError", "away"))
    with pytest.raises(ProviderUnavailable, match="away"):
        provider().remove_images(["away", "baked", "gone", "plain", "baked"])
    deleted = [request.path for request in cloud.asked if request.method == "DELETE"]
    assert deleted == [f"{IMAGES}/baked"]


def test_baked_images_are_listed_last_by_the_name_that_they_were_given(cloud: Google) -> None:
    theirs = image("theirs", day=9, labels={tags.DEPLOYMENT: "prod-2", tags.BAKE: "a"})
    unfinished = image("unfinished", "PENDING", 9)
    both = [image("old", day=2), image("new", day=3), unfinished, theirs]
    cloud.answer(IMAGES, {"items": [plain("base"), *both]})
    one = provider()
    assert one.images() == ["base", RECIPE.name, "base.img"]
    assert one._images.find("").own_name == "base"
    for spelling in (RECIPE.name, RECIPE.name.removesuffix(".img")):
        assert one._images.find(spelling).own_name == "new"


def test_a_baked_image_is_taken_rather_than_another_of_its_name(cloud: Google) -> None:
    """Also where images come from other projects only."""
    told = json.dumps({"name": "course", "base": "", "digest": ""})
    cloud.answer(IMAGES, {"items": [image("tango-course-1", description=told)]})
    cloud.answer("ubuntu-os-cloud/global/images/family/course", plain("course-v9", 9))
    found = provider(image_projects=("ubuntu-os-cloud",))._images.find("course")
    assert found.path == f"projects/{PROJECT}/global/images/tango-course-1"


def test_one_in_the_making_is_not_to_be_had(cloud: Google) -> None:
    cloud.answer(IMAGES, {"items": [image("a", "PENDING"), image("b", "FAILED")]})
    assert provider().images() == []
    with pytest.raises(ConfigurationError, match="there is no 'Course"):
        provider()._images.find(RECIPE.name)


def test_what_was_known_of_images_is_forgotten_when_there_are_others(cloud: Google) -> None:
    one = provider()
    assert one.images() == []
    cloud.answer(IMAGES, {"items": [image("a")]})
    assert one.images() == []
    assert one.baked("prod")
    assert one.images() == [RECIPE.name]


def test_an_image_whose_description_was_changed_is_called_by_its_own_name(cloud: Google) -> None:
    cloud.answer(IMAGES, {"items": [image("a", description="mine")]})
    one = provider()
    assert one.images() == ["a", "a.img"]
    assert one.baked("prod")[0].recipe == Recipe("a", "", "")
