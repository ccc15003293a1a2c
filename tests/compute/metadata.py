"""The metadata service of Compute Engine, as hosts see it at 169.254.169.254.

A host is known by its address. Without the header that no browser and no careless proxy sends,
nothing is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web
from emulation.hosts import Facts, Find

_ROOT = "/computeMetadata/v1/"
_FLAVOR = {"Metadata-Flavor": "Google"}


@dataclass
class Metadata:
    find: Find

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        facts = self.find(request.remote or "")
        if facts is None or not request.path.startswith(_ROOT):
            return web.Response(status=404, headers=_FLAVOR)
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403, headers=_FLAVOR)
        if "X-Forwarded-For" in request.headers:
            return web.Response(status=403, headers=_FLAVOR)
        if request.method != "GET" or set(request.query) - {"alt"}:
            return web.Response(status=501, headers=_FLAVOR)
        content = _content(_tree(facts), request.path.removeprefix(_ROOT))
        if content is None:
            return web.Response(status=404, headers=_FLAVOR)
        return web.Response(text=content, headers=_FLAVOR)


def _tree(facts: Facts) -> Mapping[str, str]:
    """By the path below the root."""
    instance = facts.instance
    project = f"projects/{instance.attributes.get('project/project-id', '')}"
    return {
        **instance.attributes,
        "instance/hostname": f"{instance.hostname}.{instance.zone}.c.internal",
        "instance/zone": f"{project}/zones/{instance.zone}",
        "instance/machine-type": f"{project}/machineTypes/{instance.instance_type}",
        "instance/image": instance.image,
        "instance/network-interfaces/0/ip": instance.address,
        "instance/scheduling/preemptible": str(instance.market == "spot").upper(),
        "instance/preempted": str(facts.interruption is not None).upper(),
        "instance/maintenance-event": "NONE",
    }


def _content(tree: Mapping[str, str], path: str) -> str | None:
    """Of a value, or the names in a folder; None when there is neither."""
    if path in tree:
        return tree[path]
    if path and not path.endswith("/"):
        return None
    below = {name.removeprefix(path) for name in tree if name.startswith(path)}
    names = {name.partition("/")[0] + "/" * ("/" in name) for name in below}
    return "".join(f"{name}\n" for name in sorted(names)) or None
