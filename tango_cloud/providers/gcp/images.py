"""Images, by the names that jobs give them.

A family stands for its newest image that is not deprecated; else an image is called by its own
name, or by its whole path. Jobs may write the extension `.img`, which no image's name has.

A baked image is called by the name that it was given, see baked.py. Those of the deployment are
taken rather than others of that name, those of other deployments by their own names only.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.api_core.exceptions import NotFound

from tango_cloud.core.errors import ConfigurationError, Fault
from tango_cloud.providers.cache import Cache
from tango_cloud.providers.gcp import baked, places
from tango_cloud.providers.gcp.clients import Clients
from tango_cloud.providers.gcp.errors import asking

if TYPE_CHECKING:
    from google.cloud import compute_v1

EXTENSION = ".img"
_SECONDS = 60.0
_PAGE = 500
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PATH = re.compile(
    r"(?:https?://[^/]+/(?:compute/)?v1/)?projects/(?P<project>[^/]+)/global/images/"
    r"(?P<family>family/)?(?P<name>[^/]+)"
)
_NAMED = 10
"""How many names a message lists."""
_PUBLIC = frozenset(
    {
        "almalinux-cloud",
        "centos-cloud",
        "cos-cloud",
        "debian-cloud",
        "fedora-cloud",
        "fedora-coreos-cloud",
        "opensuse-cloud",
        "oracle-linux-cloud",
        "rhel-cloud",
        "rocky-linux-cloud",
        "suse-cloud",
        "ubuntu-os-cloud",
        "ubuntu-os-pro-cloud",
    }
)
"""Projects with the images of everybody, hundreds in each."""
_ARCHITECTURES: Mapping[str, str] = {"ARM64": "arm64", "X86_64": "x86_64"}


@dataclass(frozen=True, slots=True)
class Image:
    """`disk_gib`: the least that its boot disk may have. `baked_as`: the name that it was baked
    under, empty for all others."""

    project: str
    own_name: str
    family: str
    architecture: str
    disk_gib: int
    created: dt.datetime
    baked_as: str = ""

    @property
    def name(self) -> str:
        return self.baked_as or self.family or self.own_name

    @property
    def path(self) -> str:
        return f"projects/{self.project}/global/images/{self.own_name}"


class Images:
    """Safe for many threads. `projects` are those whose images may be used; empty: our own.
    `deployment` is the one whose baked images may be."""

    def __init__(self, clients: Clients, projects: Sequence[str], deployment: str) -> None:
        self._clients = clients
        self._deployment = deployment
        self._baked: Cache[None, Sequence[Image]] = Cache(_SECONDS)
        self._setting = tuple(projects)
        self._named: Cache[str, Image] = Cache(_SECONDS)
        self._listed: Cache[None, Sequence[Image]] = Cache(_SECONDS)

    def names(self) -> Sequence[str]:
        """Every spelling of every image that is listed: first what they are called, in that order,
        then the own names of those in families."""
        listed = self.listed()
        names = [image.name for image in listed]
        names += [image.own_name for image in listed if not image.baked_as]
        extended = [name + EXTENSION for name in names if not name.endswith(EXTENSION)]
        return list(dict.fromkeys([*names, *extended]))

    def forget(self) -> None:
        """Ask anew: there are others now."""
        for cache in (self._baked, self._named, self._listed):
            cache.clear()

    def listed(self) -> Sequence[Image]:
        """The images of the projects, newest first, then the baked ones.

        Not those of Google's public projects: they can be used, but not listed.
        """
        return self._listed.get(None, self._ask_all)

    def find(self, name: str) -> Image:
        """The image of that name; without a name, the first that is listed.

        Raises ConfigurationError when there is none.
        """
        if name:
            return self._named.get(name, lambda: self._ask(name))
        listed = self.listed()
        if not listed:
            raise ConfigurationError([self._absent("no image is there to be used")])
        return listed[0]

    def _projects(self) -> Sequence[str]:
        return self._setting or (self._clients.project.name,)

    def _ask_all(self) -> Sequence[Image]:
        found: list[Image] = []
        for project in self._projects():
            if project not in _PUBLIC:
                with asking():
                    answer = self._clients.images.list(
                        request={"project": project, "max_results": _PAGE},
                        **self._clients.options,
                    )
                    found += [
                        read(image, project)
                        for image in answer
                        if _usable(image) and not baked.is_baked(image)
                    ]
        return [*newest_first(found), *self._ours()]

    def _ours(self) -> Sequence[Image]:
        """The baked ones, newest first."""
        return self._baked.get(None, self._ask_baked)

    def _ask_baked(self) -> Sequence[Image]:
        project = self._clients.project.name
        found = baked.listed(self._clients, self._deployment)
        return newest_first(read(image, project) for image in found if _usable(image))

    def _ask(self, name: str) -> Image:
        plain = name.removesuffix(EXTENSION)
        for spelling in (name, plain if plain != name else name + EXTENSION):
            for ours in self._ours():
                if ours.baked_as == spelling:
                    return ours
        path = _PATH.fullmatch(plain)
        if path is not None:
            places_to_look = [p for p in self._projects() if p == path["project"]]
            plain, of_family = path["name"], [bool(path["family"])]
        else:
            places_to_look = list(self._projects())
            of_family = [True, False]
        if _NAME.fullmatch(plain):
            for project in places_to_look:
                for family in of_family:
                    image = self._get(project, plain, family=family)
                    if image is not None:
                        return image
        raise ConfigurationError([self._absent(f"there is no {name!r}")])

    def _get(self, project: str, name: str, *, family: bool) -> Image | None:
        with asking():
            try:
                if family:
                    image = self._clients.images.get_from_family(
                        request={"project": project, "family": name}, **self._clients.options
                    )
                else:
                    image = self._clients.images.get(
                        request={"project": project, "image": name}, **self._clients.options
                    )
            except NotFound:
                return None
        return read(image, project) if _usable(image, by_name=not family) else None

    def _absent(self, problem: str) -> Fault:
        projects = ", ".join(self._projects())
        known = list(dict.fromkeys(image.name for image in self.listed()))
        listing = ", ".join(known[:_NAMED]) + (", …" if len(known) > _NAMED else "")
        return Fault(
            "image",
            f"{problem} among those of gcp.image_projects ({projects})",
            f"one of: {listing}" if known else "the family or the name of an image",
        )


def _usable(image: compute_v1.Image, *, by_name: bool = False) -> bool:
    """What is deprecated can still be used by its name."""
    state = image.deprecated.state
    return image.status in ("", "READY") and (not state or (by_name and state == "DEPRECATED"))


def read(image: compute_v1.Image, project: str) -> Image:
    try:
        created = dt.datetime.fromisoformat(image.creation_timestamp).astimezone(dt.UTC)
    except ValueError:
        created = dt.datetime.min.replace(tzinfo=dt.UTC)
    return Image(
        project=project,
        own_name=places.last(image.name),
        family=image.family,
        architecture=_ARCHITECTURES.get(image.architecture, "x86_64"),
        disk_gib=image.disk_size_gb,
        created=created,
        baked_as=baked.recipe(image).name if baked.is_baked(image) else "",
    )


def newest_first(images: Iterable[Image]) -> Sequence[Image]:
    return sorted(images, key=lambda image: (image.created, image.own_name), reverse=True)
