"""The images that a deployment has baked: which there are, what uses them, and which may go."""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tango_cloud.core.errors import ConfigurationError, Fault, InputError
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.model import Machine
from tango_cloud.orchestration.site import Sites
from tango_cloud.providers.protocol import BakedImage, Baker, Provider

_EXTENSION = ".img"
SETTLED = dt.timedelta(hours=1)
"""So long after it was begun an image is ready, or never will be: nobody waits for it any more."""


@dataclass(frozen=True, slots=True)
class Image:
    """A baked image, and where. `in_use`: a live machine may have been made of it."""

    provider: str
    baked: BakedImage
    in_use: bool = False


class Images:
    """One deployment's. `clock` gives seconds since the epoch."""

    def __init__(
        self, deployment: str, ledger: Ledger, sites: Sites, clock: Callable[[], float] = time.time
    ) -> None:
        self._deployment = deployment
        self._ledger = ledger
        self._sites = sites
        self._clock = clock

    def all(self) -> Sequence[Image]:
        """Every image, half-made ones too, by name, newest first.

        Raises ProviderUnavailable or AuthenticationError when a cloud cannot be asked.
        """
        machines = self._ledger.machines.all_live(self._deployment)
        found: list[Image] = []
        for name, baker in self._bakers().items():
            baked = baker.baked(self._deployment)
            there = [machine for machine in machines if machine.provider == name]
            found += [Image(name, one, _in_use(one, baked, there)) for one in baked]
        found.sort(key=lambda image: image.baked.created, reverse=True)
        return sorted(found, key=lambda image: image.baked.recipe.name)

    def prune(self, keep: int, older_than: dt.timedelta, *, dry_run: bool) -> Sequence[Image]:
        """Remove what `prunable` names, or with `dry_run` nothing; those images. Raises as `all`,
        before anything is removed if a cloud cannot be listed."""
        going = prunable(self.all(), keep, older_than, self._now())
        if not dry_run:
            self._remove(going)
        return going

    def remove_failed(self) -> None:
        """Remove the half-made images of processes that are no more. Raises as `all`."""
        self._remove([image for image in self.all() if failed(image.baked, self._now())])

    def baker(self) -> tuple[Provider, Baker]:
        """The one cloud where images are baked, as what it is and what it can do.

        Raises InputError when there are several, ConfigurationError when it cannot bake.
        """
        chosen = self._sites.chosen
        if len(chosen) > 1:
            raise InputError([Fault("provider", "an image is of one cloud", ", ".join(chosen))])
        provider = self._sites[chosen[0]].provider
        if not isinstance(provider, Baker):
            can = ", ".join(self._bakers()) or "one that can"
            raise ConfigurationError([Fault("provider", f"{chosen[0]} bakes no images", can)])
        return provider, provider

    def _bakers(self) -> Mapping[str, Baker]:
        return {
            name: site.provider
            for name, site in self._sites.items()
            if isinstance(site.provider, Baker)
        }

    def _remove(self, images: Iterable[Image]) -> None:
        images = list(images)
        for name, baker in self._bakers().items():
            if ids := [image.baked.id for image in images if image.provider == name]:
                baker.remove_images(ids)

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock(), dt.UTC)


def prunable(
    images: Iterable[Image], keep: int, older_than: dt.timedelta, now: dt.datetime
) -> Sequence[Image]:
    """What may go: half-made images that nobody works on any more, and of each name in each cloud
    all but the newest `keep`, at least one, which are older than that and not in use. Pure."""
    going = []
    ready: Counter[tuple[str, str]] = Counter()
    for image in sorted(images, key=lambda image: image.baked.created, reverse=True):
        baked = image.baked
        if not baked.ready:
            if failed(baked, now):
                going.append(image)
            continue
        place = (image.provider, baked.recipe.name)
        ready[place] += 1
        surplus = ready[place] > max(1, keep)
        if surplus and not image.in_use and now - baked.created >= older_than:
            going.append(image)
    return going


def failed(baked: BakedImage, now: dt.datetime) -> bool:
    """Whether it will never be ready: its cloud says so, or it is half-made and old."""
    return not baked.ready and (bool(baked.failure) or now - baked.created > SETTLED)


def current(images: Iterable[BakedImage], name: str) -> BakedImage | None:
    """The image that the name stands for: the newest ready one."""
    named = (one for one in images if one.ready and plain(one.recipe.name) == plain(name))
    return max(named, key=lambda one: one.created, default=None)


def plain(name: str) -> str:
    """The name without the extension that jobs may, in some clouds, write or leave out."""
    return name.removesuffix(_EXTENSION)


def last(path: str) -> str:
    """An image's id without the path that it may have."""
    return path.rpartition("/")[2]


def _in_use(image: BakedImage, images: Iterable[BakedImage], machines: Iterable[Machine]) -> bool:
    """Whether one of the machines, all of the image's cloud, may have been made of it.

    A machine that was asked for by name was made of what the name stood for then. That may have
    been an image older than the latest that was begun: in doubt both count as used.
    """
    name = image.recipe.name
    later = [
        other.created
        for other in images
        if other.ready and other.recipe.name == name and other.created > image.created
    ]
    since = image.created.timestamp()
    until = (min(later) + SETTLED).timestamp() if later else float("inf")
    return image.ready and any(
        last(asked) == last(image.id)
        or (asked == plain(name) and since <= machine.created_at < until)
        for machine in machines
        for asked in [plain(machine.shape.image)]
    )
