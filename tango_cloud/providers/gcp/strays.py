"""What machines on Compute Engine may leave behind: disks.

Addresses are not among them: none is ever reserved for a machine, so none that is left is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tango_cloud.core import tags
from tango_cloud.core.errors import TangoCloudError
from tango_cloud.providers import tagged
from tango_cloud.providers.attempts import attempt_each
from tango_cloud.providers.gcp import places
from tango_cloud.providers.gcp.clients import Clients
from tango_cloud.providers.gcp.errors import asking, says_absent
from tango_cloud.providers.gcp.inventory import moment, whole
from tango_cloud.providers.protocol import Stray

if TYPE_CHECKING:
    from google.cloud import compute_v1

_PAGE = 500


def find(clients: Clients, deployment: str) -> Sequence[Stray]:
    """Raises ProviderUnavailable or AuthenticationError when Google cannot be asked, also when it
    answers for some zones only."""
    found: list[compute_v1.Disk] = []
    with asking():
        answer = clients.disks.aggregated_list(
            request={
                "project": clients.project.name,
                "filter": f'labels.{tags.DEPLOYMENT}="{tags.encode(deployment)}"',
                "max_results": _PAGE,
            },
            **clients.options,
        )
        for page in answer.pages:
            found += whole(page, "disks")
    return [
        Stray(
            places.instance_id(places.last(disk.zone), disk.name),
            "disk",
            moment(disk.creation_timestamp),
        )
        for disk in found
        # Without a zone it is a region's: no machine ever had one.
        if disk.zone and not disk.users and tagged.is_part(deployment, dict(disk.labels))
    ]


def remove(clients: Clients, ids: Iterable[str]) -> None:
    """Those already absent are a success. Each is tried before the first failure is raised; Google
    refuses those that were attached meanwhile. Returns once it has agreed to the others."""
    attempt_each(sorted(set(ids)), lambda one: _remove(clients, one))


def _remove(clients: Clients, one: str) -> None:
    zone, _, name = one.partition("/")
    request = {"project": clients.project.name, "zone": zone, "disk": name}
    try:
        with asking():
            clients.disks.delete_unary(request=request, **clients.options)
    except TangoCloudError as error:
        if not says_absent(error, f"disks/{name}"):
            raise
