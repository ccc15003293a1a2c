"""EC2's instances as ours: by tag, complete, or an error."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tango_cloud.core import tags
from tango_cloud.core.errors import ConfigurationError, Fault
from tango_cloud.core.model import Instance, InstanceStatus, MachineKey
from tango_cloud.providers import cloud_init
from tango_cloud.providers.aws.clients import Clients
from tango_cloud.providers.aws.errors import asking

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

log = logging.getLogger(__name__)

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
_TAG = re.compile(r"[a-z0-9_-]{1,63}")
_SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class Place:
    """Where a machine answers SSH. `address` is empty as long as that is not known."""

    address: str
    port: int = _SSH_PORT
    username: str = cloud_init.LOGIN


class Ec2Inventory:
    """Safe for many threads. `lifetime` is the longest that a machine may live."""

    def __init__(
        self, clients: Clients, *, public: bool, reach: Path | None, lifetime: dt.timedelta
    ) -> None:
        self._clients = clients
        self._public = public
        self._reach = reach
        self._lifetime = lifetime
        self._told: dict[str, frozenset[str]] = {}

    def instances(self, deployment: str) -> Sequence[Instance]:
        """Raises ProviderUnavailable or AuthenticationError when EC2 cannot be asked."""
        wanted = tags.encode(deployment)
        found = []
        with asking():
            pages = self._clients.ec2.get_paginator("describe_instances").paginate(
                Filters=[
                    {"Name": f"tag:{tags.DEPLOYMENT}", "Values": [wanted]},
                    {"Name": "instance-state-name", "Values": _LISTED},
                ],
                PaginationConfig={"PageSize": _PAGE},
            )
            for page in pages:
                for reservation in page["Reservations"]:
                    found += reservation["Instances"]
        reach = _read_reach(self._reach)
        listed, damaged = [], {}
        for described in found:
            labels = labels_of(described)
            # Once more: a filter that is not understood must never make others' machines ours.
            if labels.get(tags.DEPLOYMENT) == wanted:
                place = place_of(described, public=self._public, reach=reach)
                instance, faults = read(deployment, described, labels, place, self._lifetime)
                listed.append(instance)
                if faults:
                    damaged[instance.instance_id] = faults
        self._tell(deployment, damaged)
        return listed

    def _tell(self, deployment: str, damaged: Mapping[str, Sequence[str]]) -> None:
        """Once for each instance as long as it is there: listings come every second."""
        for instance_id in damaged.keys() - self._told.get(deployment, frozenset()):
            faults = ", ".join(damaged[instance_id])
            log.warning(
                "%s is tagged as ours, but cannot be known by its other tags: %s; it is listed as "
                "an orphan",
                instance_id,
                faults,
            )
        self._told[deployment] = frozenset(damaged)


def labels_of(described: InstanceTypeDef) -> Mapping[str, str]:
    return {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}


def read(
    deployment: str,
    described: InstanceTypeDef,
    labels: Mapping[str, str],
    place: Place,
    lifetime: dt.timedelta,
) -> tuple[Instance, Sequence[str]]:
    """The instance, and which of its tags are damaged.

    It is ours by `tango-deployment` alone, so whatever the other tags say, it is listed: left out,
    it would be paid for and never found; an error would hide all the others. What cannot be known
    gets a value that no machine of the ledger has, which makes it an orphan.
    """
    instance_id = described["InstanceId"]
    created = described["LaunchTime"].astimezone(dt.UTC)
    faults = []

    def word(tag: str, otherwise: str) -> str:
        if _TAG.fullmatch(labels.get(tag, "")):
            return labels[tag]
        faults.append(tag)
        return otherwise

    def number(tag: str) -> int | None:
        text = labels.get(tag, "")
        if text.isascii() and text.isdigit() and len(text) < 16:
            return int(text)
        faults.append(tag)
        return None

    name, image = word(tags.NAME, instance_id), labels.get(tags.IMAGE, "")
    expires = _moment(number(tags.EXPIRES))
    if expires is None:
        expires = created + lifetime
        if tags.EXPIRES not in faults:
            faults.append(tags.EXPIRES)
    instance = Instance(
        instance_id=instance_id,
        key=MachineKey(deployment, number(tags.ID) or 0, tags.decode(name) or name),
        uid=word(tags.UID, instance_id),
        wave=word(tags.WAVE, ""),
        image=tags.decode(image) or image,
        status=_STATUSES.get(described["State"]["Name"], InstanceStatus.UNKNOWN),
        address=place.address,
        port=place.port,
        username=place.username,
        zone=described["Placement"]["AvailabilityZone"],
        instance_type=described["InstanceType"],
        created=created,
        expires=expires,
    )
    return instance, faults


def _moment(seconds: int | None) -> dt.datetime | None:
    try:
        return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (OverflowError, ValueError, OSError):
        return None


def place_of(
    described: InstanceTypeDef,
    *,
    public: bool,
    reach: Mapping[str, Mapping[str, Any]] | None = None,
) -> Place:
    """`reach` translates the addresses of emulated instances; one that it lacks is not known."""
    private = described.get("PrivateIpAddress", "")
    if reach is None:
        return Place(described.get("PublicIpAddress", "") if public else private)
    where = reach.get(private)
    if where is None:
        return Place("")
    return Place(str(where["address"]), int(where["port"]), str(where["username"]))


def _read_reach(path: Path | None) -> Mapping[str, Mapping[str, Any]] | None:
    if path is None:
        return None
    try:
        reach = json.loads(path.read_text(encoding="utf-8"))
        return {address: dict(where) for address, where in reach.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            [Fault("aws.reach", f"{path}: {error}", "a JSON file of addresses, for tests only")]
        ) from error
