"""The instance metadata service (version 2) that hosts see at 169.254.169.254.

A host is known by its address. Without a token, which only a PUT gets, nothing is told.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

_TTL = "X-aws-ec2-metadata-token-ttl-seconds"
_TOKEN = "X-aws-ec2-metadata-token"
_LONGEST_SECONDS = 21600


@dataclass(frozen=True)
class Facts:
    """What an instance can learn about itself."""

    user_data: str
    data: Mapping[str, str]
    """By the path below /latest/meta-data/."""
    region: str
    interruption: dt.datetime | None = None


@dataclass
class Metadata:
    """`find` gives the facts of the instance with an address; None when there is none."""

    find: Callable[[str], Facts | None]
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Whose each token is, and when it ends (monotonic)."""

    async def handle(self, request: web.BaseRequest) -> web.Response:
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
    if path == "/latest/user-data":
        return facts.user_data
    if path == "/latest/dynamic/instance-identity/document":
        document = {
            "instanceId": facts.data["instance-id"],
            "region": facts.region,
            "availabilityZone": facts.data["placement/availability-zone"],
            "instanceType": facts.data["instance-type"],
            "privateIp": facts.data["local-ipv4"],
        }
        return json.dumps(document)
    root = "/latest/meta-data/"
    if not path.startswith(root):
        return None
    data = dict(facts.data)
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
