"""First host keys that machines make themselves, and publish as guest attributes.

Only the machine can write them, and only who may ask Compute Engine can read them, over TLS.
"""

from __future__ import annotations

import re

from google.api_core.exceptions import NotFound

from tango_cloud.providers.gcp.clients import Clients
from tango_cloud.providers.gcp.errors import asking

_NAMESPACE = "hostkeys"
_TYPE = "ssh-ed25519"
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def published(clients: Clients, instance_id: str) -> str:
    """Empty as long as there is none. Raises ProviderUnavailable or AuthenticationError."""
    zone, _, name = instance_id.partition("/")
    request = {
        "project": clients.project.name,
        "zone": zone,
        "instance": name,
        "query_path": f"{_NAMESPACE}/",
    }
    with asking():
        try:
            found = clients.instances.get_guest_attributes(request=request, **clients.options)
        except NotFound:
            return ""
    for entry in found.query_value.items:
        text = entry.value.strip()
        if (entry.namespace, entry.key) == (_NAMESPACE, _TYPE) and _BASE64.fullmatch(text):
            return f"{_TYPE} {text}"
    return ""
