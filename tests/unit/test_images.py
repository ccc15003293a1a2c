"""Which images may go: never the newest of a name, nor one that a machine may have been made of."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from tango_cloud.core.errors import ProviderUnavailable
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.model import MachineKey, Shape
from tango_cloud.orchestration.images import Image, Images, prunable
from tango_cloud.orchestration.inventory import Inventory
from tango_cloud.orchestration.site import Site, Sites
from tango_cloud.providers.protocol import BakedImage

from .baking import NOW, BakingCloud, image
from .fakes import FakeCloud

ALWAYS = dt.timedelta(0)


def ids(*images: BakedImage, keep: int = 2, older_than: dt.timedelta = ALWAYS) -> list[str]:
    there = [Image("fake", one) for one in images]
    return [going.baked.id for going in prunable(there, keep, older_than, NOW)]


def test_the_newest_of_each_name_stay() -> None:
    there = [image(name, hours) for hours in (9, 5, 7, 3) for name in ("a", "b.img")]
    assert ids(*there) == ["a@7", "b.img@7", "a@9", "b.img@9"]
    assert ids(*there, keep=3) == ["a@9", "b.img@9"]
    assert ids(*there, keep=0) == ids(*there, keep=1)
    assert ids(*there, keep=1)[0] == "a@5"
    assert not ids(image("a", 1), image("a.img", 2), keep=1)


def test_each_cloud_has_its_own() -> None:
    there = [Image("one", image("a", 1)), Image("two", image("a", 2))]
    assert not prunable(there, 1, ALWAYS, NOW)


def test_what_is_young_or_in_use_stays() -> None:
    there = [image("a", hours) for hours in (1, 30, 50)]
    assert ids(*there, keep=1, older_than=dt.timedelta(days=2)) == ["a@50"]
    used = [replace(Image("fake", one), in_use=True) for one in there]
    assert not prunable(used, 1, ALWAYS, NOW)


def test_a_half_made_image_goes_when_nobody_waits_for_it_and_counts_as_none() -> None:
    half, old = image("a", 0.9, ready=False), image("a", 1.1, ready=False)
    assert ids(half, old, image("a", 5), keep=1, older_than=dt.timedelta(days=9)) == ["a@1.1"]
    known = replace(image("a", 0.1, ready=False), failure="no room")
    assert ids(half, known, image("a", 5)) == ["a@0.1"]


@pytest.fixture
def now() -> object:
    """The ledger's clock: machines are asked for two hours before `NOW`."""
    return (NOW - dt.timedelta(hours=2)).timestamp


@pytest.mark.parametrize(
    ("asked", "provider", "used"),
    [
        # Asked for at 2: what was begun at 2.5 may not have been ready then.
        ("a", "fake", ["a@2.5", "a@5"]),
        ("a.img", "fake", ["a@2.5", "a@5"]),
        ("a@9", "fake", ["a@9"]),
        ("projects/p/global/images/a@9", "fake", ["a@9"]),
        ("b", "fake", []),
        ("a", "elsewhere", []),
    ],
)
def test_a_machine_uses_what_its_image_s_name_stood_for_when_it_was_asked_for(
    ledger: Ledger, asked: str, provider: str, used: list[str]
) -> None:
    cloud = BakingCloud()
    cloud.images_there = [image("a", hours) for hours in (1, 2.5, 5, 9)]
    cloud.images_there.append(image("a", 0.5, ready=False))
    key = MachineKey("prod", 1, "a")
    ledger.machines.request(key, provider, Shape(asked), 3600)
    ledger.machines.request(replace(key, deployment="neighbour"), "fake", Shape("a@1"), 3600)
    images = Images("prod", ledger, Sites({"fake": site(cloud)}), NOW.timestamp)
    assert [one.baked.id for one in images.all() if one.in_use] == used


def site(cloud: FakeCloud) -> Site:
    return Site(cloud, Inventory(cloud, "prod"))


def test_what_is_pruned_is_told_and_gone_and_a_cloud_that_is_away_ends_it_first(
    ledger: Ledger, tmp_path: Path
) -> None:
    cloud, away = BakingCloud(), BakingCloud("away")
    cloud.images_there = [image("a", 5), image("a", 3), image("a", 4)]
    images = Images("prod", ledger, Sites({"fake": site(cloud), "away": site(away)}), NOW.timestamp)
    away.did, away.trouble_while_baking = ["bake"], [ProviderUnavailable("away")]
    with pytest.raises(ProviderUnavailable):
        images.prune(1, ALWAYS, dry_run=False)
    told = images.prune(2, ALWAYS, dry_run=True)
    assert [one.baked.id for one in told] == ["a@5"]
    assert len(cloud.images_there) == 3
    assert images.prune(2, ALWAYS, dry_run=False) == told
    assert [one.baked.id for one in images.all()] == ["a@3", "a@4"]
