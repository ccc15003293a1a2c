"""Images of local machines, without a machine: a folder stands for it."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path

import pytest

from tango_cloud.core.errors import ConfigurationError, ProviderUnavailable
from tango_cloud.core.model import MachineKey, MachineRequest, Shape
from tango_cloud.providers.local import LocalOptions, LocalProvider
from tango_cloud.providers.protocol import Baker, Recipe

MACHINE = "i-5f0a6c0e91d2"
RECIPE = Recipe("course 1/ü.img", "local.img", "ab" * 32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    home = tmp_path / "root" / "instances" / MACHINE / "inside" / "home"
    home.mkdir(parents=True, mode=0o700)
    (home / "course").mkdir()
    (home / "course" / "tool").write_text("a tool")
    (home / "course" / "tool").chmod(0o750)
    (home / "link").symlink_to("course/tool")
    os.mkfifo(home / "pipe")
    (home / "course").chmod(0o500)
    etc = home.parent / "etc"
    etc.mkdir()
    (etc / "host_key").write_text("the machine's own")
    return tmp_path / "root"


@pytest.fixture
def provider(root: Path) -> LocalProvider:
    return LocalProvider(LocalOptions(root), "prod")


def test_a_baked_image_is_a_copy_of_the_home_and_of_nothing_else(
    provider: LocalProvider, root: Path
) -> None:
    assert isinstance(provider, Baker)
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    image_id = provider.bake(MACHINE, "prod", RECIPE)
    (image,) = provider.baked("prod")
    assert (image.id, image.recipe, image.ready) == (image_id, RECIPE, True)
    assert before <= image.created <= dt.datetime.now(dt.UTC)
    assert image.size_bytes
    copy = root / "images" / image_id
    assert sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*")) == [
        "course",
        "course/tool",
        "link",
        "pipe",
    ]
    assert (copy / "course" / "tool").stat().st_mode & 0o777 == 0o750
    assert (copy / "link").readlink() == Path("course/tool")
    assert (root / "images").stat().st_mode & 0o777 == 0o700
    assert {path.name for path in copy.parent.iterdir()} == {image_id, f"{image_id}.json"}


def test_jobs_can_ask_for_it_and_the_newest_of_a_name_is_the_one(
    provider: LocalProvider, root: Path
) -> None:
    old, new = (provider.bake(MACHINE, "prod", RECIPE) for _ in range(2))
    _change(root, old, created="2020-01-01T00:00:00+00:00")
    assert provider.images() == ["local.img", RECIPE.name]
    assert [image.id for image in provider.baked("prod")] == [new, old]
    assert _home(provider, RECIPE.name) == str(root / "images" / new)
    assert _home(provider, "local.img") is None


def test_it_wins_over_an_image_of_the_same_name(provider: LocalProvider, root: Path) -> None:
    image_id = provider.bake(MACHINE, "prod", Recipe("local.img", "local.img", "ab"))
    assert provider.images() == ["local.img"]
    assert _home(provider, "local.img") == str(root / "images" / image_id)


def test_other_deployments_do_not_see_it(provider: LocalProvider, root: Path) -> None:
    provider.bake(MACHINE, "prod", RECIPE)
    other = LocalProvider(LocalOptions(root), "prod-2")
    assert other.baked("prod-2") == []
    assert other.images() == ["local.img"]
    with pytest.raises(ConfigurationError, match="there is no"):
        _home(other, RECIPE.name)


def test_what_is_half_made_is_listed_as_such_and_never_used(
    provider: LocalProvider, root: Path
) -> None:
    """As after a SIGKILL: the document is there from the beginning, the size only at the end."""
    image_id = provider.bake(MACHINE, "prod", RECIPE)
    _change(root, image_id, size_bytes=None)
    (image,) = provider.baked("prod")
    assert not image.ready
    assert provider.images() == ["local.img"]
    with pytest.raises(ConfigurationError):
        provider.offers(Shape(RECIPE.name))
    provider.remove_images([image_id])
    assert not (root / "images").exists()


def test_what_is_half_removed_is_not_used_and_can_be_removed(
    provider: LocalProvider, root: Path
) -> None:
    image_id = provider.bake(MACHINE, "prod", RECIPE)
    folder = root / "images"
    (folder / image_id).rename(folder / f"{image_id}.removed")
    (image,) = provider.baked("prod")
    assert not image.ready
    assert provider.images() == ["local.img"]
    provider.remove_images([image_id])
    assert not folder.exists()


def test_removal_is_idempotent_and_leaves_the_others_alone(
    provider: LocalProvider, root: Path
) -> None:
    gone, kept = (provider.bake(MACHINE, "prod", RECIPE) for _ in range(2))
    for _ in range(2):
        provider.remove_images([gone, "image-000000000000", f"../instances/{MACHINE}", ""])
    assert [image.id for image in provider.baked("prod")] == [kept]
    assert (root / "instances" / MACHINE / "inside" / "home" / "course").is_dir()


def test_a_bake_that_fails_leaves_nothing(provider: LocalProvider, root: Path) -> None:
    with pytest.raises(ProviderUnavailable, match=r"i-000000000000.*cannot be made"):
        provider.bake("i-000000000000", "prod", RECIPE)
    with pytest.raises(ConfigurationError):
        provider.bake(MACHINE, "prod", Recipe("", "local.img", "ab"))
    assert provider.baked("prod") == []
    assert not (root / "images").exists()


def test_a_damaged_document_is_an_error_and_no_absence(provider: LocalProvider, root: Path) -> None:
    image_id = provider.bake(MACHINE, "prod", RECIPE)
    (root / "images" / f"{image_id}.json").write_text("{}")
    with pytest.raises(ProviderUnavailable, match=image_id):
        provider.baked("prod")


def _home(provider: LocalProvider, image: str) -> object:
    """Where the home of a machine of that image is copied from."""
    expires = dt.datetime(2030, 1, 31, tzinfo=dt.UTC)
    request = MachineRequest(
        uid="0123456789ab",
        key=MachineKey("prod", 1, "pool"),
        shape=Shape(image),
        offer=provider.offers(Shape("local.img"))[0],
        tags={},
        expires=expires,
        user_data="",
    )
    machine = provider.wave_machines([request])["0123456789ab"]
    assert isinstance(machine, dict)
    return machine["home"]


def _change(root: Path, image_id: str, **changes: object) -> None:
    path = root / "images" / f"{image_id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
