"""The instance metadata service (version 2) that hosts see at 169.254.169.254.

A host is known by its address. Without a token, which only a PUT gets, nothing is told.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from emulation.hosts import Facts, Find

_TTL = "X-aws-ec2-metadata-token-ttl-seconds"
_TOKEN = "X-aws-ec2-metadata-token"
_LONGEST_SECONDS = 21600


@dataclass
class Metadata:
    find: Find
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Whose each token is, and when it ends (monotonic)."""

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        address = request.remote or ""
        facts = self.find(address)
        if facts is None:
            return web.Response(status=404)
        if request.path == "/latest/api/token":
            return self._make_token(request, address)
        owner, ends = self._tokens.get(request.headers.get(_TOKEN, ""), ("", 0.0))
        if owner != address or ends < time.monotonic():
            return web.Response(status=401)
        content = _content(facts, request.path)
        return web.Response(status=404) if content is None else web.Response(text=content)

    def _make_token(self, request: web.BaseRequest, address: str) -> web.Response:
        if request.method != "PUT":
            return web.Response(status=405)
        if "X-Forwarded-For" in request.headers:
            return web.Response(status=403)
        seconds = request.headers.get(_TTL, "")
        if not seconds.isdigit() or not 1 <= int(seconds) <= _LONGEST_SECONDS:
            return web.Response(status=400)
        token = secrets.token_urlsafe(40)
        self._tokens[token] = (address, time.monotonic() + int(seconds))
        return web.Response(text=token, headers={_TTL: seconds})


def _content(facts: Facts, path: str) -> str | None:
    instance = facts.instance
    if path == "/latest/user-data":
        return instance.user_data
    if path == "/latest/dynamic/instance-identity/document":
        document = {
            "instanceId": instance.instance_id,
            "region": instance.region,
            "availabilityZone": instance.zone,
            "instanceType": instance.instance_type,
            "privateIp": instance.address,
        }
        return json.dumps(document)
    root = "/latest/meta-data/"
    if not path.startswith(root):
        return None
    data = {
        "instance-id": instance.instance_id,
        "ami-id": instance.image,
        "instance-type": instance.instance_type,
        "instance-life-cycle": instance.market,
        "local-ipv4": instance.address,
        "local-hostname": instance.hostname,
        "placement/availability-zone": instance.zone,
        "placement/region": instance.region,
    }
    if facts.interruption:
        moment = facts.interruption.strftime("%Y-%m-%dT%H:%M:%SZ")
        data["spot/instance-action"] = json.dumps({"action": "terminate", "time": moment})
        data["spot/termination-time"] = moment
    wanted = path.removeprefix(root)
    if wanted in data:
        return data[wanted]
    return _listing(data, wanted)


def _listing(data: Mapping[str, str], folder: str) -> str | None:
    below = {key.removeprefix(folder) for key in data if key.startswith(folder)}
    if not below or (folder and not folder.endswith("/")):
        return None
    return "\n".join(sorted({name.partition("/")[0] + "/" * ("/" in name) for name in below}))
