"""What machines on EC2 may leave behind: volumes and network interfaces.

Addresses are not among them: none is ever allocated for a machine, so none that is left is ours.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from tango_cloud.core import tags
from tango_cloud.core.errors import TangoCloudError
from tango_cloud.providers import tagged
from tango_cloud.providers.aws.clients import Clients
from tango_cloud.providers.aws.errors import asking, code_of
from tango_cloud.providers.protocol import Stray

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, TagTypeDef

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
            labels = _labels(volume.get("Tags", []))
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
            labels = _labels(interface.get("TagSet", []))
            if interface["Status"] == _DETACHED and marks.items() <= labels.items():
                yield Stray(interface["NetworkInterfaceId"], "network interface", None)


def remove(clients: Clients, ids: Iterable[str]) -> None:
    """Those already absent are a success. Each is tried before the first failure is raised; EC2
    refuses those that were attached meanwhile."""
    failures = []
    for one in sorted(set(ids)):
        try:
            _remove(clients, one)
        except TangoCloudError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _remove(clients: Clients, one: str) -> None:
    try:
        with asking():
            if one.startswith("vol-"):
                clients.ec2.delete_volume(VolumeId=one)
            else:
                clients.ec2.delete_network_interface(NetworkInterfaceId=one)
    except TangoCloudError as error:
        said = error.__cause__
        if not (isinstance(said, ClientError) and code_of(said) in _ABSENT):
            raise


def _labels(found: Iterable[TagTypeDef]) -> Mapping[str, str]:
    return {tag["Key"]: tag["Value"] for tag in found}
