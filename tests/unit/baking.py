"""A cloud in memory that bakes, and what prepares its machines."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tango_cloud.core.errors import Cancelled, TangoCloudError
from tango_cloud.core.model import Endpoint
from tango_cloud.providers.protocol import BakedImage, Recipe
from tango_cloud.transports.protocol import OnTask, Preparation

from .fakes import FakeCloud

NOW = dt.datetime(2030, 1, 31, 11, tzinfo=dt.UTC)


def image(
    name: str, hours: float = 0.0, *, ready: bool = True, base: str = "fake.img", digest: str = "d"
) -> BakedImage:
    """Begun so many hours before `NOW`; its id tells the name and the hours."""
    created = NOW - dt.timedelta(hours=hours)
    return BakedImage(f"{name}@{hours:g}", Recipe(name, base, digest), created, ready, None)


class BakingCloud(FakeCloud):
    """A `Baker` besides. An image becomes ready with the look `looks_until_ready`."""

    sudo = True

    def __init__(self, name: str = "fake") -> None:
        super().__init__(name)
        self.images_there: list[BakedImage] = []
        self.listed = ["fake.img"]
        self.did: list[str] = []
        self.looks_until_ready = 3
        self.failure = ""
        """What each image that is begun fails with."""
        self.bake_failure: TangoCloudError | None = None
        self.begins_all_the_same = False
        self.trouble_while_baking: list[TangoCloudError] = []

    def images(self) -> Sequence[str]:
        return self.listed

    def bake(self, instance_id: str, deployment: str, recipe: Recipe) -> str:
        assert instance_id in self.alive
        self.did.append("bake")
        made = BakedImage(f"image-{len(self.images_there)}", recipe, NOW, False, 1, self.failure)
        if self.bake_failure is None or self.begins_all_the_same:
            self.images_there.insert(0, made)
        if self.bake_failure is not None:
            raise self.bake_failure
        return made.id

    def baked(self, deployment: str) -> Sequence[BakedImage]:
        if "bake" in self.did and self.trouble_while_baking:
            raise self.trouble_while_baking.pop()
        newest = self.images_there[0] if self.images_there else None
        if newest is not None and newest.id.startswith("image-") and not newest.ready:
            self.looks_until_ready -= 1
            if self.looks_until_ready <= 0:
                self.images_there[0] = replace(newest, ready=True)
        return list(self.images_there)

    def remove_images(self, ids: Iterable[str]) -> None:
        going = set(ids)
        self.images_there = [one for one in self.images_there if one.id not in going]


class FakePreparer:
    """`failures`: what each of its steps raises."""

    def __init__(self, cloud: BakingCloud) -> None:
        self.cloud = cloud
        self.failures: dict[str, TangoCloudError] = {}
        self.state = "as it was"
        self.endpoints: list[Endpoint] = []

    def _do(self, step: str, stop: threading.Event | None = None) -> None:
        self.cloud.did.append(step)
        if stop is not None and stop.is_set():
            raise Cancelled(step)
        if step in self.failures:
            raise self.failures[step]

    def check(self, playbook: Path) -> None:
        self._do("check")

    def digest(self, playbook: Path | None) -> str:
        return f"{playbook} {self.state}"

    def prepare(
        self,
        endpoint: Endpoint,
        playbook: Path | None,
        *,
        on_task: OnTask | None = None,
        timeout: float,
        stop: threading.Event | None = None,
    ) -> Preparation:
        self._do("prepare", stop)
        self.endpoints.append(endpoint)
        if on_task is not None:
            on_task("Install a compiler")
        return Preparation(changed=1, ok=2, left_out=("packages",))

    def seal(
        self,
        endpoint: Endpoint,
        *,
        on_task: OnTask | None = None,
        timeout: float,
        stop: threading.Event | None = None,
    ) -> None:
        self._do("seal", stop)
