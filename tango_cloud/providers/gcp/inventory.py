"""Compute Engine's instances as ours: by label, complete, or an error."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tango_cloud.core import tags
from tango_cloud.core.errors import ProviderUnavailable
from tango_cloud.core.model import Instance, InstanceStatus
from tango_cloud.providers import tagged
from tango_cloud.providers.gcp import places
from tango_cloud.providers.gcp.clients import Clients
from tango_cloud.providers.gcp.errors import asking
from tango_cloud.providers.tagged import Described, Place

if TYPE_CHECKING:
    from google.cloud import compute_v1

_STATUSES: Mapping[str, InstanceStatus] = {
    "PENDING": InstanceStatus.PENDING,
    "PROVISIONING": InstanceStatus.PENDING,
    "STAGING": InstanceStatus.PENDING,
    "RUNNING": InstanceStatus.RUNNING,
    # What is being deleted is STOPPING; so is what somebody stops, until it is TERMINATED.
    "PENDING_STOP": InstanceStatus.STOPPING,
    "STOPPING": InstanceStatus.STOPPING,
    "SUSPENDING": InstanceStatus.STOPPING,
    "DEPROVISIONING": InstanceStatus.STOPPING,
    # Stopped, whatever Google calls it. It is neither usable nor on its way out, its disk costs as
    # before, and nothing ends it at its expiry: it is to be deleted yet.
    "TERMINATED": InstanceStatus.UNKNOWN,
    "STOPPED": InstanceStatus.UNKNOWN,
    "SUSPENDED": InstanceStatus.UNKNOWN,
    "REPAIRING": InstanceStatus.UNKNOWN,
}
"""An instance that is gone is not listed any more."""
_PAGE = 500
"""The most that a list gives at once."""
_NOTHING_HERE = "NO_RESULTS_ON_PAGE"


class ComputeInventory:
    """Safe for many threads. `lifetime` is the longest that a machine may live."""

    def __init__(
        self, clients: Clients, *, public: bool, reach: Path | None, lifetime: dt.timedelta
    ) -> None:
        self._clients = clients
        self._public = public
        self._reach = reach
        self._reader = tagged.Reader(lifetime)

    def instances(self, deployment: str) -> Sequence[Instance]:
        """Raises ProviderUnavailable or AuthenticationError when Google cannot be asked, also when
        it answers for some zones only."""
        found: list[compute_v1.Instance] = []
        with asking():
            answer = self._clients.instances.aggregated_list(
                request={
                    "project": self._clients.project.name,
                    "filter": f'labels.{tags.DEPLOYMENT}="{tags.encode(deployment)}"',
                    "max_results": _PAGE,
                    # Not asked for: returnPartialSuccess, which is off by default.
                },
                **self._clients.options,
            )
            for page in answer.pages:
                found += whole(page, "instances")
        reach = tagged.read_reach("gcp.reach", self._reach)
        return self._reader.instances(
            deployment,
            [read(one, place_of(one, public=self._public, reach=reach)) for one in found],
        )


def whole(page: Any, kind: str) -> Sequence[Any]:
    """What a page of an aggregated list holds (`kind`: `instances`, `disks`). Raises
    ProviderUnavailable unless that is all that it should: what is not shown because its zone did
    not answer is not gone."""
    missing = {places.last(scope) for scope in page.unreachables}
    if _is_serious(page.warning):
        missing.add("all of it")
    found: list[Any] = []
    for scope, part in page.items.items():
        found += getattr(part, kind)
        if _is_serious(part.warning):
            missing.add(places.last(scope))
    if missing:
        raise ProviderUnavailable(
            f"Google cannot tell now what there is in {', '.join(sorted(missing))}"
        )
    return found


def _is_serious(warning: Any) -> bool:
    """Of whatever Google may warn, it is not known that the list is whole all the same."""
    return warning.code not in ("", _NOTHING_HERE)


def read(described: compute_v1.Instance, place: Place) -> Described:
    zone = places.last(described.zone)
    return Described(
        instance_id=places.instance_id(zone, described.name),
        status=_STATUSES.get(described.status, InstanceStatus.UNKNOWN),
        place=place,
        zone=zone,
        instance_type=places.last(described.machine_type),
        created=moment(described.creation_timestamp),
        labels=dict(described.labels),
    )


def place_of(
    described: compute_v1.Instance,
    *,
    public: bool,
    reach: Mapping[str, Mapping[str, Any]] | None = None,
) -> Place:
    private, outside = "", ""
    for interface in described.network_interfaces[:1]:
        private = interface.network_i_p
        outside = next((way.nat_i_p for way in interface.access_configs), "")
    return tagged.place_of(private, outside if public else None, reach)


def moment(text: str) -> dt.datetime:
    """What does not say when it was made counts as new: nobody is to remove it for its age."""
    try:
        return dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except ValueError:
        return dt.datetime.now(dt.UTC)
