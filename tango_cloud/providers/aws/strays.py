"""What machines on EC2 may leave behind: volumes and network interfaces.

Addresses are not among them: none is ever allocated for a machine, so none that is left is ours.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tango_cloud.core import tags
from tango_cloud.core.errors import TangoCloudError
from tango_cloud.providers import tagged
from tango_cloud.providers.attempts import attempt_each
from tango_cloud.providers.aws.clients import Clients
from tango_cloud.providers.aws.errors import asking, says
from tango_cloud.providers.aws.labels import labels_of
from tango_cloud.providers.protocol import Stray

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef

_PAGE = 500
_DETACHED = "available"
_ABSENT = {"InvalidVolume.NotFound", "InvalidNetworkInterfaceID.NotFound"}


def find(clients: Clients, deployment: str) -> Sequence[Stray]:
    """Raises ProviderUnavailable or AuthenticationError when EC2 cannot be asked."""
    filters: Sequence[FilterTypeDef] = [
        {"Name": f"tag:{tags.DEPLOYMENT}", "Values": [tags.encode(deployment)]},
        {"Name": "status", "Values": [_DETACHED]},
    ]
    with asking():
        return [
            *_volumes(clients, deployment, filters),
            *_interfaces(clients, deployment, filters),
        ]


def _volumes(
    clients: Clients, deployment: str, filters: Sequence[FilterTypeDef]
) -> Iterator[Stray]:
    pages = clients.ec2.get_paginator("describe_volumes").paginate(
        Filters=filters, PaginationConfig={"PageSize": _PAGE}
    )
    for page in pages:
        for volume in page["Volumes"]:
            labels = labels_of(volume.get("Tags", []))
            if volume["State"] == _DETACHED and tagged.is_part(deployment, labels):
                created = volume["CreateTime"].astimezone(dt.UTC)
                yield Stray(volume["VolumeId"], "volume", created)


def _interfaces(
    clients: Clients, deployment: str, filters: Sequence[FilterTypeDef]
) -> Iterator[Stray]:
    """They bear the two tags of the envelope, whose launch template makes them, and no machine's.
    EC2 does not tell when it made them."""
    encoded = tags.encode(deployment)
    marks = {tags.DEPLOYMENT: encoded, "Name": f"tango-{encoded}"}
    pages = clients.ec2.get_paginator("describe_network_interfaces").paginate(
        Filters=filters, PaginationConfig={"PageSize": _PAGE}
    )
    for page in pages:
        for interface in page["NetworkInterfaces"]:
            labels = labels_of(interface.get("TagSet", []))
            if interface["Status"] == _DETACHED and marks.items() <= labels.items():
                yield Stray(interface["NetworkInterfaceId"], "network interface", None)


def remove(clients: Clients, ids: Iterable[str]) -> None:
    """Those already absent are a success. Each is tried before the first failure is raised; EC2
    refuses those that were attached meanwhile."""
    attempt_each(sorted(set(ids)), lambda one: _remove(clients, one))


def _remove(clients: Clients, one: str) -> None:
    try:
        with asking():
            if one.startswith("vol-"):
                clients.ec2.delete_volume(VolumeId=one)
            else:
                clients.ec2.delete_network_interface(NetworkInterfaceId=one)
    except TangoCloudError as error:
        if not says(error, _ABSENT):
            raise
