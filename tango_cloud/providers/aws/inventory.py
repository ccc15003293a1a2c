"""EC2's instances as ours: by tag, complete, or an error."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tango_cloud.core import tags
from tango_cloud.core.model import Instance, InstanceStatus
from tango_cloud.providers import tagged
from tango_cloud.providers.aws.clients import Clients
from tango_cloud.providers.aws.errors import asking
from tango_cloud.providers.aws.labels import labels_of
from tango_cloud.providers.tagged import Described, Place

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

_STATUSES: Mapping[str, InstanceStatus] = {
    "pending": InstanceStatus.PENDING,
    "running": InstanceStatus.RUNNING,
    "shutting-down": InstanceStatus.STOPPING,
    "stopping": InstanceStatus.STOPPING,
    # Somebody stopped it. It is neither usable nor on its way out: it is to be terminated yet.
    "stopped": InstanceStatus.UNKNOWN,
    "terminated": InstanceStatus.GONE,
}
_LISTED = [state for state, status in _STATUSES.items() if status is not InstanceStatus.GONE]
_PAGE = 1000
"""The most that DescribeInstances gives at once."""


class Ec2Inventory:
    """Safe for many threads. `lifetime` is the longest that a machine may live."""

    def __init__(
        self, clients: Clients, *, public: bool, reach: Path | None, lifetime: dt.timedelta
    ) -> None:
        self._clients = clients
        self._public = public
        self._reach = reach
        self._reader = tagged.Reader(lifetime)

    def instances(self, deployment: str) -> Sequence[Instance]:
        """Raises ProviderUnavailable or AuthenticationError when EC2 cannot be asked."""
        found = []
        with asking():
            pages = self._clients.ec2.get_paginator("describe_instances").paginate(
                Filters=[
                    {"Name": f"tag:{tags.DEPLOYMENT}", "Values": [tags.encode(deployment)]},
                    {"Name": "instance-state-name", "Values": _LISTED},
                ],
                PaginationConfig={"PageSize": _PAGE},
            )
            for page in pages:
                for reservation in page["Reservations"]:
                    found += reservation["Instances"]
        reach = tagged.read_reach("aws.reach", self._reach)
        return self._reader.instances(
            deployment,
            [read(one, place_of(one, public=self._public, reach=reach)) for one in found],
        )


def read(described: InstanceTypeDef, place: Place) -> Described:
    return Described(
        instance_id=described["InstanceId"],
        status=_STATUSES.get(described["State"]["Name"], InstanceStatus.UNKNOWN),
        place=place,
        zone=described["Placement"]["AvailabilityZone"],
        instance_type=described["InstanceType"],
        created=described["LaunchTime"].astimezone(dt.UTC),
        labels=labels_of(described.get("Tags", [])),
    )


def place_of(
    described: InstanceTypeDef,
    *,
    public: bool,
    reach: Mapping[str, Mapping[str, Any]] | None = None,
) -> Place:
    outside = described.get("PublicIpAddress", "") if public else None
    return tagged.place_of(described.get("PrivateIpAddress", ""), outside, reach)
