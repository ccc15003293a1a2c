"""Baked images on EC2: an AMI each, and a snapshot of each of its disks.

All of them bear the same tags from the call that makes them. What a crash leaves of a removal is a
snapshot without its AMI: that is listed as an image that is not ready, and removed as such.
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from tango_cloud.core import tags
from tango_cloud.core.errors import ConfigurationError, Fault, TangoCloudError
from tango_cloud.providers.attempts import attempt_each
from tango_cloud.providers.aws.clients import Clients
from tango_cloud.providers.aws.errors import asking, says
from tango_cloud.providers.aws.labels import labels_of
from tango_cloud.providers.protocol import BakedImage, Recipe

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, ImageTypeDef, SnapshotTypeDef, TagTypeDef

_NAME = re.compile(r"(?!ami-)[\w .:/=+@-]{1,256}")
_NOT_IN_AMI_NAMES = re.compile(r"[^A-Za-z0-9 ./_-]")
_AMI_NAME_LENGTH = 128
_PAGE = 500
_READY = "available"
_GONE = "deregistered"
_FAILED = {"failed", "invalid", "error"}
_ABSENT = {"InvalidAMIID.NotFound", "InvalidAMIID.Unavailable", "InvalidSnapshot.NotFound"}


def bake(clients: Clients, instance_id: str, deployment: str, recipe: Recipe) -> str:
    """The AMI's id. EC2 shuts the machine down for it, and starts it again.

    The AMI's own name is one that there is only once in the account. Jobs go by its tag `Name`.
    """
    if not _NAME.fullmatch(recipe.name):
        expected = "1 to 256 letters, digits, spaces and _.:/=+-@, not an id"
        raise ConfigurationError([Fault("image", f"EC2 takes no {recipe.name!r}", expected)])
    token = secrets.token_hex(6)
    plain = _NOT_IN_AMI_NAMES.sub("-", recipe.name)
    own_name = f"{plain[: _AMI_NAME_LENGTH - 1 - len(token)]}-{token}"
    labels = {
        "Name": recipe.name,
        tags.DEPLOYMENT: tags.encode(deployment),
        tags.BAKE: token,
        tags.BASE: recipe.base,
        tags.DIGEST: recipe.digest,
    }
    given: Sequence[TagTypeDef] = [{"Key": key, "Value": text} for key, text in labels.items()]
    try:
        with asking():
            answer = clients.ec2.create_image(
                InstanceId=instance_id,
                Name=own_name,
                TagSpecifications=[
                    {"ResourceType": "image", "Tags": given},
                    {"ResourceType": "snapshot", "Tags": given},
                ],
            )
    except TangoCloudError as error:
        if says(error, {"InvalidAMIName.Duplicate"}):
            # Nobody else has that name: the answer to our own request was lost.
            for image in _images(clients, {"name": [own_name]}):
                return image["ImageId"]
        raise
    return answer["ImageId"]


def find(clients: Clients, deployment: str) -> Sequence[BakedImage]:
    """Newest first."""
    ours = {f"tag:{tags.DEPLOYMENT}": [tags.encode(deployment)]}
    # First what may be left over: an image that is made meanwhile has its snapshots after it.
    snapshots = _snapshots(clients, ours)
    images = _images(clients, ours)
    parts: dict[str, list[SnapshotTypeDef]] = {}
    for snapshot in snapshots:
        parts.setdefault(_labels(snapshot)[tags.BAKE], []).append(snapshot)
    found = [
        BakedImage(
            image["ImageId"],
            _recipe(labels := _labels(image)),
            dt.datetime.fromisoformat(image["CreationDate"]).astimezone(dt.UTC),
            image["State"] == _READY,
            _size(parts.pop(labels[tags.BAKE], [])),
            _failure(image),
        )
        for image in images
    ]
    for left in parts.values():
        for snapshot in left:
            created = snapshot["StartTime"].astimezone(dt.UTC)
            recipe = _recipe(_labels(snapshot))
            found.append(
                BakedImage(snapshot["SnapshotId"], recipe, created, False, _size([snapshot]))
            )
    return sorted(found, key=lambda image: (image.created, image.id), reverse=True)


def remove(clients: Clients, ids: Iterable[str]) -> None:
    """Those already absent, and those that nobody baked, are left alone. Each is tried before the
    first failure is raised."""
    wanted = sorted(set(ids))
    if not wanted:
        return
    images = _images(clients, {"image-id": wanted})
    tokens = [_labels(image)[tags.BAKE] for image in images]
    snapshots = _snapshots(clients, {"snapshot-id": wanted})
    if tokens:
        snapshots = [*snapshots, *_snapshots(clients, {f"tag:{tags.BAKE}": tokens})]
    deregister, delete = clients.ec2.deregister_image, clients.ec2.delete_snapshot
    calls: list[Callable[[], object]] = [
        *(partial(deregister, ImageId=image["ImageId"]) for image in images),
        *(partial(delete, SnapshotId=snapshot["SnapshotId"]) for snapshot in snapshots),
    ]
    attempt_each(calls, _remove)


def _remove(call: Callable[[], object]) -> None:
    try:
        with asking():
            call()
    except TangoCloudError as error:
        if not says(error, _ABSENT):
            raise


def _images(clients: Clients, filters: Mapping[str, Sequence[str]]) -> Sequence[ImageTypeDef]:
    """Only those that were baked, in whatever state."""
    found: list[ImageTypeDef] = []
    with asking():
        pages = clients.ec2.get_paginator("describe_images").paginate(
            Owners=["self"], Filters=_filters(filters), IncludeDisabled=True
        )
        for page in pages:
            found += page["Images"]
    return [image for image in found if tags.BAKE in _labels(image) and image["State"] != _GONE]


def _snapshots(clients: Clients, filters: Mapping[str, Sequence[str]]) -> Sequence[SnapshotTypeDef]:
    found: list[SnapshotTypeDef] = []
    with asking():
        pages = clients.ec2.get_paginator("describe_snapshots").paginate(
            OwnerIds=["self"], Filters=_filters(filters), PaginationConfig={"PageSize": _PAGE}
        )
        for page in pages:
            found += page["Snapshots"]
    return [snapshot for snapshot in found if tags.BAKE in _labels(snapshot)]


def _filters(filters: Mapping[str, Sequence[str]]) -> Sequence[FilterTypeDef]:
    return [{"Name": key, "Values": list(values)} for key, values in filters.items()]


def _labels(described: ImageTypeDef | SnapshotTypeDef) -> Mapping[str, str]:
    return labels_of(described.get("Tags", []))


def _recipe(labels: Mapping[str, str]) -> Recipe:
    return Recipe(labels.get("Name", ""), labels.get(tags.BASE, ""), labels.get(tags.DIGEST, ""))


def _failure(image: ImageTypeDef) -> str:
    if image["State"] not in _FAILED:
        return ""
    return image.get("StateReason", {}).get("Message") or f"EC2 calls it {image['State']}"


def _size(snapshots: Sequence[SnapshotTypeDef]) -> int | None:
    """All that is in them, whether other snapshots have it too or not."""
    sizes = [snapshot.get("FullSnapshotSizeInBytes") for snapshot in snapshots]
    known = [size for size in sizes if size is not None]
    return sum(known) if known and len(known) == len(sizes) else None
