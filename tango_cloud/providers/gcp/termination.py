"""Deleting instances directly, without Terraform."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from tango_cloud.core.errors import TangoCloudError
from tango_cloud.providers.gcp import errors
from tango_cloud.providers.gcp.clients import Clients
from tango_cloud.providers.gcp.errors import DeletionProtected, asking, says_absent

log = logging.getLogger(__name__)

_AT_ONCE = 10
"""As many connections as a client keeps."""
_TRIES = 5
_NAMESPACE = uuid.UUID("5d2b7d0c-6a1f-4b0e-9a51-2f6f3c1f6f0a")
_PROTECTED = "protected against deletion"


def terminate(clients: Clients, instance_ids: Iterable[str]) -> None:
    """Those already absent are a success. All are tried before the first failure is raised.

    Raises DeletionProtected, ProviderUnavailable, AuthenticationError.
    """
    ids = sorted(set(instance_ids))
    if not ids:
        return
    with ThreadPoolExecutor(min(_AT_ONCE, len(ids))) as pool:
        answers = list(pool.map(lambda one: _try(clients, one), ids))
    failures = [error for error in answers if error is not None]
    protected = [i for e in failures if isinstance(e, DeletionProtected) for i in e.instance_ids]
    for error in failures:
        if not isinstance(error, DeletionProtected):
            raise error
    if protected:
        raise DeletionProtected(protected)


def _try(clients: Clients, instance_id: str) -> TangoCloudError | None:
    try:
        _delete(clients, instance_id)
    except TangoCloudError as error:
        return error
    return None


def _delete(clients: Clients, instance_id: str) -> None:
    """Returns once Google has agreed to it, or says that there is no such instance.

    The request's id follows from the instance's, so that whoever asks again, after a lost answer or
    a crash, asks for the same deletion. Google answers such a request with the first operation, and
    does nothing: when that is over, and the instance was to be deleted all the same, because the
    operation failed or because there is a new one of that name, the next id follows from it.
    """
    zone, _, name = instance_id.partition("/")
    if not zone or not name or "/" in name:
        log.warning("%r is no instance's id: nothing to delete", instance_id)
        return
    project = clients.project.name
    chain = [project, zone, name]
    for _ in range(_TRIES):
        request = {"project": project, "zone": zone, "instance": name}
        request["request_id"] = str(uuid.uuid5(_NAMESPACE, "/".join(chain)))
        try:
            with asking():
                operation = clients.instances.delete_unary(request=request, **clients.options)
        except TangoCloudError as error:
            if says_absent(error, f"instances/{name}"):
                return
            if _PROTECTED in str(error):
                raise DeletionProtected([instance_id]) from error
            raise
        if operation.status.name != "DONE":
            return
        chain.append(operation.name)
    if operation.error.errors:
        raise errors.from_operation(operation)
