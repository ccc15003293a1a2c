"""Images, by the names that jobs give them.

As with Tango's own EC2 backend, an image is called by its tag `Name`; one that has none, by its own
name; any, by its id. Jobs may write the extension `.img` whether the name has it or not.

Baked images are those of the deployment only, wherever else images may come from. One of a name is
taken rather than another's of that name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from tango_cloud.core import tags
from tango_cloud.core.errors import ConfigurationError, Fault
from tango_cloud.providers.aws.clients import Clients
from tango_cloud.providers.aws.errors import asking, code_of
from tango_cloud.providers.aws.labels import labels_of
from tango_cloud.providers.cache import Cache

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, ImageTypeDef

EXTENSION = ".img"
_SECONDS = 60.0
_ID = re.compile(r"ami-[0-9a-f]+")
_ACCOUNT = re.compile(r"self|\d{12}")
_GLOB = re.compile(r"([*?\\])")
_NAMED = 10
"""How many names a message lists."""


@dataclass(frozen=True, slots=True)
class Image:
    """`tag` is its tag `Name`, empty without; `disk_gib` the least that its root disk may have, 0
    where that is not known. `baked_by` is the deployment, as its tag has it, that baked it, empty
    for all others."""

    image_id: str
    tag: str
    own_name: str
    architecture: str
    disk_gib: int
    created: str
    baked_by: str

    @property
    def name(self) -> str:
        return self.tag or self.own_name or self.image_id


class Images:
    """Safe for many threads. `owners` are those whose images may be used, `deployment` the one
    whose baked images may be."""

    def __init__(self, clients: Clients, owners: Sequence[str], deployment: str) -> None:
        self._clients = clients
        self._owners = list(owners)
        self._deployment = tags.encode(deployment)
        self._named: Cache[str, Image] = Cache(_SECONDS)
        self._listed: Cache[None, Sequence[Image]] = Cache(_SECONDS)

    def names(self) -> Sequence[str]:
        """Every spelling of every image that is listed: first their names, in that order."""
        names = [image.name for image in self.listed()]
        extended = [name + EXTENSION for name in names if not name.endswith(EXTENSION)]
        return list(dict.fromkeys([*names, *extended]))

    def listed(self) -> Sequence[Image]:
        """The images of the accounts that are owners, newest first, then the baked ones.

        Not those of Amazon, which are tens of thousands: they can be used, but not listed.
        """
        return self._listed.get(None, self._ask_all)

    def find(self, name: str) -> Image:
        """The newest image of that name; without a name, the first that is listed.

        Raises ConfigurationError when there is none.
        """
        if name:
            return self._named.get(name, lambda: self._ask(name))
        listed = self.listed()
        if not listed:
            raise ConfigurationError([self._absent("no image is there to be used")])
        return listed[0]

    def forget(self) -> None:
        """Ask anew: there are others now."""
        self._named.clear()
        self._listed.clear()

    def _ask_all(self) -> Sequence[Image]:
        accounts = [owner for owner in self._owners if _ACCOUNT.fullmatch(owner)]
        found = self._describe(owners=accounts) if accounts else []
        return sorted(self._usable(found, {}), key=lambda image: bool(image.baked_by))

    def _usable(
        self, found: Iterable[Image], filters: Mapping[str, Sequence[str]]
    ) -> Sequence[Image]:
        """Those of `found` that are not baked, and all of ours that are, newest first."""
        ours = {f"tag:{tags.DEPLOYMENT}": [self._deployment], **filters}
        baked = self._describe(owners=["self"], filters=ours)
        return newest_first(
            [
                *(image for image in found if not image.baked_by),
                *(image for image in baked if image.baked_by == self._deployment),
            ]
        )

    def _ask(self, name: str) -> Image:
        plain = name.removesuffix(EXTENSION)
        if _ID.fullmatch(plain):
            found = self._describe(ids=[plain])
            if found:
                return found[0]
            raise ConfigurationError([self._absent(f"no image has the id {plain!r}")])
        spellings = [name, plain if plain != name else name + EXTENSION]
        values = [_GLOB.sub(r"\\\1", spelling) for spelling in spellings]
        # Two questions: filters of one are all to be met.
        found = [
            image
            for key in ("tag:Name", "name")
            for image in self._describe(owners=self._owners, filters={key: values})
        ]
        usable = self._usable(found, {"tag:Name": values})
        chosen = choose(sorted(usable, key=lambda image: not image.baked_by), spellings)
        if chosen is None:
            raise ConfigurationError([self._absent(f"there is no {name!r}")])
        return chosen

    def _absent(self, problem: str) -> Fault:
        owners = ", ".join(self._owners)
        known = [image.name for image in self.listed()]
        listing = ", ".join(known[:_NAMED]) + (", …" if len(known) > _NAMED else "")
        return Fault(
            "image",
            f"{problem} in {self._clients.region.name} among those of aws.image_owners ({owners})",
            f"one of: {listing}" if known else "an image with a tag Name, or an id: ami-…",
        )

    def _describe(
        self,
        *,
        owners: Sequence[str] = (),
        ids: Sequence[str] = (),
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> Sequence[Image]:
        conditions: list[FilterTypeDef] = [{"Name": "state", "Values": ["available"]}]
        conditions += [{"Name": key, "Values": list(v)} for key, v in (filters or {}).items()]
        found = []
        with asking():
            try:
                pages = self._clients.ec2.get_paginator("describe_images").paginate(
                    Owners=list(owners), ImageIds=list(ids), Filters=conditions
                )
                for page in pages:
                    found += [read(image) for image in page["Images"]]
            except ClientError as error:
                if not code_of(error).startswith("InvalidAMIID"):
                    raise
        return found


def read(image: ImageTypeDef) -> Image:
    labels = labels_of(image.get("Tags", []))
    root = image.get("RootDeviceName")
    sizes = [
        mapping["Ebs"].get("VolumeSize", 0)
        for mapping in image.get("BlockDeviceMappings", [])
        if "Ebs" in mapping and mapping.get("DeviceName") == root
    ]
    return Image(
        image_id=image["ImageId"],
        tag=labels.get("Name", ""),
        own_name=image.get("Name", ""),
        architecture=str(image.get("Architecture", "x86_64")),
        disk_gib=max(sizes, default=0),
        created=image.get("CreationDate", ""),
        baked_by=labels.get(tags.DEPLOYMENT, "") if tags.BAKE in labels else "",
    )


def choose(images: Sequence[Image], spellings: Sequence[str]) -> Image | None:
    """The first that is called so: by its tag rather than by its own name, spelt as asked for
    rather than otherwise."""
    for spelling in spellings:
        for called in ("tag", "own_name"):
            for image in images:
                if getattr(image, called) == spelling:
                    return image
    return None


def newest_first(images: Iterable[Image]) -> Sequence[Image]:
    """The first of a name is the one that the name stands for."""
    return sorted(images, key=lambda image: (image.created, image.image_id), reverse=True)
