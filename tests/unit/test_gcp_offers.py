"""Machine types and images of Compute Engine, from answers as it gives them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from google.cloud import compute_v1

from tango_cloud.core.errors import ConfigurationError, ProviderUnavailable
from tango_cloud.core.model import Market, Shape
from tango_cloud.core.sections import GcpSettings
from tango_cloud.providers.gcp import GcpProvider, machine_types
from tango_cloud.providers.gcp.clients import Clients, Patience

from .google_api import PROJECT, Google, error

ZONES = ("us-central1-a", "us-central1-b", "us-east1-b", "us-east1-c")
PATTERNS = GcpSettings().machine_types
LABEL = "family/course"


def kind(name: str, cores: int, memory_mib: int, **changes: object) -> dict[str, Any]:
    """As machineTypes.list has it."""
    return {
        "name": name,
        "guestCpus": cores,
        "memoryMb": memory_mib,
        "architecture": "ARM64" if name.startswith(("t2a", "c4a")) else "X86_64",
    } | changes


ANSWER = [
    kind("n2-standard-2", 2, 8192),
    kind("e2-standard-2", 2, 8192),
    kind("c3-standard-4-lssd", 4, 16384),
    kind("c3-standard-4", 4, 16384),
    kind("e2-small", 2, 2048, isSharedCpu=True),
    kind("e2-micro", 2, 1024, isSharedCpu=True),
    kind("t2a-standard-1", 1, 4096),
    kind("c4a-standard-1", 1, 4096),
    kind("n4-standard-2", 2, 8192),
    kind("n1-standard-1", 1, 3840),
    kind("n2-old-2", 2, 2048, deprecated={"state": "DEPRECATED"}),
    kind("n2-gpu-2", 2, 2048, accelerators=[{"guestAcceleratorType": "x"}]),
    kind("c3-standard-192-metal", 192, 786432),
]


@pytest.fixture
def cloud(google: Google) -> Google:
    google.answer("zones", {"items": [{"name": zone, "status": "UP"} for zone in ZONES]})
    for zone in ZONES:
        google.answer(f"zones/{zone}/machineTypes", {"items": ANSWER})
    google.answer("global/images", {"items": [image("course-v1", LABEL)]})
    google.answer("global/images/family/course", image("course-v1"))
    return google


def image(name: str, link: str = "", **changes: object) -> dict[str, Any]:
    found = {
        "name": name,
        "status": "READY",
        "architecture": "X86_64",
        "diskSizeGb": "10",
        "creationTimestamp": "2030-01-01T00:00:00.000-08:00",
    }
    return found | ({"family": link.partition("/")[2]} if link else {}) | changes


def provider(**settings: Any) -> GcpProvider:
    clients = Clients(PROJECT, Patience(1, 0))
    return GcpProvider(GcpSettings(**({"zones": ZONES} | settings)), "prod", clients=clients)


def offered(shape: Shape | None = None, **settings: Any) -> Sequence[tuple[str, str]]:
    offers = provider(**settings).offers(shape or Shape("course.img"))
    assert {offer.provider for offer in offers} == {"gcp"}
    assert all(offer.zone.startswith(f"{offer.region}-") for offer in offers)
    return [(offer.instance_type, offer.zone) for offer in offers]


def test_old_bare_and_accelerated_types_are_left_out_and_what_no_pattern_names() -> None:
    read = [
        machine_types.read(compute_v1.MachineType.from_json(json.dumps(k)), PATTERNS)
        for k in ANSWER
    ]
    assert {found.name for found in read if found} == {
        *("n2-standard-2", "e2-standard-2", "c3-standard-4", "c3-standard-4-lssd"),
        *("e2-small", "e2-micro", "t2a-standard-1", "c4a-standard-1"),
    }
    silent = compute_v1.MachineType(name="t2a-standard-1", guest_cpus=1, memory_mb=4096)
    found = machine_types.read(silent, PATTERNS)
    assert found is not None
    assert found.architectures == {"arm64"}


def test_the_smallest_first_then_the_zones_by_region(cloud: Google) -> None:
    zones = ("us-east1-c", "us-central1-b", "us-east1-b")
    assert offered(zones=zones)[:4] == [
        ("e2-small", "us-east1-c"),
        ("e2-small", "us-east1-b"),
        ("e2-small", "us-central1-b"),
        ("e2-standard-2", "us-east1-c"),
    ]
    large = offered(Shape("course.img", cores=3), zones=("us-east1-c",))
    assert large == [("c3-standard-4", "us-east1-c"), ("c3-standard-4-lssd", "us-east1-c")]


def test_a_zone_offers_only_the_types_that_it_has(cloud: Google) -> None:
    cloud.answer("zones/us-central1-a/machineTypes", {"items": []})
    assert "us-central1-a" not in {zone for _, zone in offered()}


def test_markets_in_their_order(cloud: Google) -> None:
    offers = provider(markets=("spot", "on-demand")).offers(Shape("course"))
    markets = [offer.market for offer in offers]
    assert markets == sorted(markets, key=[Market.SPOT, Market.ON_DEMAND].index)
    assert set(markets) == {Market.SPOT, Market.ON_DEMAND}


def test_the_images_architecture_decides(cloud: Google) -> None:
    cloud.answer("global/images/family/arm", image("arm-v1", architecture="ARM64"))
    shape = Shape("arm.img", cores=1)
    assert {name for name, _ in offered(shape)} == {"t2a-standard-1", "c4a-standard-1"}
    with pytest.raises(ConfigurationError, match=r"types for arm64"):
        offered(shape, machine_types=("e2-*",))


def test_what_cannot_be_had_is_told_with_what_can(cloud: Google) -> None:
    with pytest.raises(ConfigurationError, match=r"n2-standard-2: 2 cores|c3-standard-4"):
        offered(Shape("course", cores=1000))
    with pytest.raises(ConfigurationError, match=r"gcp\.machine_types: .*g2-\*"):
        offered(machine_types=("g2-*",))
    with pytest.raises(ConfigurationError, match=r"gcp\.zones: .*us-central1-z.*us-central1-"):
        offered(zones=("us-central1-z",))


def test_a_zone_that_is_down_is_gone_without(cloud: Google) -> None:
    up = [{"name": zone, "status": "DOWN" if zone == ZONES[0] else "UP"} for zone in ZONES]
    cloud.answer("zones", {"items": up})
    assert {zone for _, zone in offered()} == set(ZONES[1:])
    with pytest.raises(ProviderUnavailable, match="down"):
        offered(zones=ZONES[:1])


def test_what_is_known_is_not_asked_for_again_and_outlasts_an_outage(cloud: Google) -> None:
    one = provider()
    one.offers(Shape("course.img"))
    asked = len(cloud.asked)
    one.offers(Shape("course.img", cores=4))
    assert len(cloud.asked) == asked
    cloud.answer(f"zones/{ZONES[2]}/machineTypes", error(503, "backendError"))
    with pytest.raises(ProviderUnavailable):
        offered()


def test_an_image_is_called_by_its_family_or_by_its_name(cloud: Google) -> None:
    listed = [
        image("course-v1", LABEL),
        image("course-v2", LABEL, creationTimestamp="2030-01-02T00:00:00.000-08:00"),
        # Later than it seems: hours are of another zone.
        image("plain", creationTimestamp="2030-01-02T09:00:00.000-00:00"),
        image("old", deprecated={"state": "DEPRECATED"}),
        image("unfinished", status="PENDING"),
    ]
    cloud.answer(
        "global/images", {"items": listed[:2], "nextPageToken": "1"}, {"items": listed[2:]}
    )
    names = provider().images()
    assert names == [
        *("plain", "course", "course-v2", "course-v1"),
        *("plain.img", "course.img", "course-v2.img", "course-v1.img"),
    ]


def found(name: str, **settings: Any) -> str:
    return provider(**settings)._images.find(name).path


def test_every_spelling_of_an_image(cloud: Google) -> None:
    cloud.answer("global/images/plain", image("plain"))
    cloud.answer("global/images/old", image("old", deprecated={"state": "DEPRECATED"}))
    cloud.answer("global/images/obsolete", image("obsolete", deprecated={"state": "OBSOLETE"}))
    here = f"projects/{PROJECT}/global/images"
    assert found("course") == found("course.img") == found("") == f"{here}/course-v1"
    assert found("plain.img") == found(f"{here}/plain") == f"{here}/plain"
    assert found(f"{here}/family/course") == f"{here}/course-v1"
    assert found(f"https://www.googleapis.com/compute/v1/{here}/plain") == f"{here}/plain"
    assert found("old") == f"{here}/old"
    for absent in (
        "obsolete",
        "Course",
        "../x",
        "no",
        "projects/other-project/global/images/plain",
    ):
        with pytest.raises(ConfigurationError, match="one of: course"):
            found(absent)


def test_projects_are_looked_through_in_their_order(cloud: Google) -> None:
    family = "ubuntu-2404-lts-amd64"
    cloud.answer(f"ubuntu-os-cloud/global/images/family/{family}", image("ubuntu-2404-v1"))
    projects = (PROJECT, "ubuntu-os-cloud")
    path = "projects/ubuntu-os-cloud/global/images/ubuntu-2404-v1"
    assert found(family, image_projects=projects) == path
    assert found("course", image_projects=projects).startswith(f"projects/{PROJECT}/")
    # Hundreds: they can be used, but are not listed.
    only_public = provider(image_projects=("ubuntu-os-cloud",))
    assert only_public.images() == []
    with pytest.raises(ConfigurationError, match="the family or the name of an image"):
        only_public.offers(Shape(""))


def test_an_image_that_may_not_be_seen_is_no_absence(cloud: Google) -> None:
    cloud.answer("global/images/family/course", error(503, "backendError", "away"))
    with pytest.raises(ProviderUnavailable, match="away"):
        found("course")
