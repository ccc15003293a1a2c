"""Baked images on Compute Engine.

An image's own name is made up, because there may be only one of it; what it is called, what it was
made of and by whom stand in its labels and its description. What labels cannot hold is in the
latter only.
"""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tango_cloud.core import tags
from tango_cloud.core.errors import (
    ConfigurationError,
    Fault,
    ProviderUnavailable,
    TangoCloudError,
)
from tango_cloud.providers.attempts import attempt_each
from tango_cloud.providers.gcp import errors
from tango_cloud.providers.gcp.clients import Clients
from tango_cloud.providers.gcp.errors import asking, says_absent
from tango_cloud.providers.gcp.inventory import moment
from tango_cloud.providers.protocol import BakedImage, Recipe

if TYPE_CHECKING:
    from google.cloud import compute_v1

_PAGE = 500
_LONGEST = 256
_READABLE = 40
"""Characters of its name that an image's own name takes over."""
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")
_WAITS = 5
_WAIT_SECONDS = 150
"""Google answers each wait within two minutes, whether the operation is done or not."""


def bake(clients: Clients, instance_id: str, deployment: str, recipe: Recipe) -> str:
    """The image's own name. Returns once the machine is stopped and Google has agreed to it."""
    if not 0 < len(recipe.name) <= _LONGEST:
        raise ConfigurationError(
            [Fault("image", f"{recipe.name!r} is no name", f"1 to {_LONGEST} characters")]
        )
    from google.cloud import compute_v1

    project = clients.project.name
    zone, _, name = instance_id.partition("/")
    machine = {"project": project, "zone": zone, "instance": name}
    _stop(clients, machine)
    with asking():
        instance = clients.instances.get(request=machine, **clients.options)
        token = secrets.token_hex(6)
        readable = _NOT_IN_NAMES.sub("-", recipe.name.lower())[:_READABLE].strip("-")
        image = compute_v1.Image(
            name="-".join(filter(None, ("tango", readable, token))),
            source_disk=next(disk.source for disk in instance.disks if disk.boot),
            description=json.dumps(
                {"name": recipe.name, "base": recipe.base, "digest": recipe.digest}
            ),
            labels={tags.DEPLOYMENT: tags.encode(deployment), tags.BAKE: token},
        )
        operation = clients.images.insert_unary(
            request={
                "project": project,
                "image_resource": image,
                "request_id": str(uuid.uuid4()),
            },
            **clients.options,
        )
    if operation.error.errors:
        raise errors.from_operation(operation)
    return image.name


def _stop(clients: Clients, machine: Mapping[str, str]) -> None:
    """Returns when it is stopped: a disk that is written to makes no image."""
    with asking():
        operation = clients.instances.stop_unary(
            request={**machine, "request_id": str(uuid.uuid4())}, **clients.options
        )
        for _ in range(_WAITS):
            if operation.status.name == "DONE":
                break
            operation = clients.zone_operations.wait(
                request={
                    "project": machine["project"],
                    "zone": machine["zone"],
                    "operation": operation.name,
                },
                retry=clients.options["retry"],
                timeout=_WAIT_SECONDS,
            )
    if operation.error.errors:
        raise errors.from_operation(operation)
    if operation.status.name != "DONE":
        raise ProviderUnavailable(f"Google does not stop {machine['instance']}")


def find(clients: Clients, deployment: str) -> Sequence[BakedImage]:
    """Newest first. Without those that are being deleted."""
    found = [
        BakedImage(
            image.name,
            recipe(image),
            moment(image.creation_timestamp),
            image.status == "READY",
            image.archive_size_bytes or None,
            "Google calls it FAILED" if image.status == "FAILED" else "",
        )
        for image in listed(clients, deployment)
    ]
    return sorted(found, key=lambda image: (image.created, image.id), reverse=True)


def listed(clients: Clients, deployment: str) -> Sequence[compute_v1.Image]:
    """Those that the deployment has baked, in whatever state, but those that are being deleted."""
    wanted = tags.encode(deployment)
    with asking():
        answer = clients.images.list(
            request={
                "project": clients.project.name,
                "filter": f'labels.{tags.DEPLOYMENT}="{wanted}"',
                "max_results": _PAGE,
            },
            **clients.options,
        )
        return [
            image
            for image in answer
            if is_baked(image)
            and image.labels[tags.DEPLOYMENT] == wanted
            and image.status != "DELETING"
        ]


def remove(clients: Clients, ids: Iterable[str]) -> None:
    """Those already absent, and those that nobody baked, are left alone. Each is tried before the
    first failure is raised. Returns once Google has agreed to the others."""
    attempt_each(sorted(set(ids)), lambda one: _remove(clients, one))


def _remove(clients: Clients, one: str) -> None:
    request = {"project": clients.project.name, "image": one}
    try:
        with asking():
            image = clients.images.get(request=request, **clients.options)
            if is_baked(image):
                clients.images.delete_unary(request=request, **clients.options)
    except TangoCloudError as error:
        if not says_absent(error, f"images/{one}"):
            raise


def is_baked(image: compute_v1.Image) -> bool:
    return tags.BAKE in image.labels and tags.DEPLOYMENT in image.labels


def recipe(image: compute_v1.Image) -> Recipe:
    """Of a baked image. One whose description was changed by hand is called by its own name."""
    try:
        told = json.loads(image.description)
        return Recipe(str(told["name"]), str(told["base"]), str(told["digest"]))
    except (ValueError, TypeError, KeyError):
        return Recipe(image.name, "", "")
