"""What is asked of an emulation itself, below /_emulation/ on its endpoint. JSON both ways."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from emulation.hosts import Hosts, Launched

End = Literal["interrupted", "died"]


@dataclass(frozen=True)
class Control:
    """Of any cloud with hosts.

    `order` takes a fault as its client sends it, and raises TypeError or ValueError; `clear`
    forgets all of them. `end` ends an instance that was interrupted, or whose host has died.
    """

    hosts: Hosts
    calls: Counter[str]
    order: Callable[[Mapping[str, Any]], None]
    clear: Callable[[], None]
    end: Callable[[Launched, End], Awaitable[None]]
    _interruptions: set[asyncio.Task[None]] = field(default_factory=set)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/_emulation/calls", self._calls),
            web.delete("/_emulation/calls", self._reset_calls),
            web.post("/_emulation/faults", self._order),
            web.delete("/_emulation/faults", self._clear),
            web.get("/_emulation/hosts", self._hosts),
            web.post("/_emulation/hosts/{id:.+}/kill", self._kill),
            web.post("/_emulation/hosts/{id:.+}/interrupt", self._interrupt),
        ]

    async def _calls(self, _: web.Request) -> web.Response:
        return web.json_response(self.calls)

    async def _reset_calls(self, _: web.Request) -> web.Response:
        self.calls.clear()
        return web.json_response({})

    async def _order(self, request: web.Request) -> web.Response:
        try:
            self.order(await request.json())
        except (TypeError, ValueError) as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return web.json_response({})

    async def _clear(self, _: web.Request) -> web.Response:
        self.clear()
        return web.json_response({})

    async def _hosts(self, _: web.Request) -> web.Response:
        return web.json_response(self.hosts.table())

    async def _kill(self, request: web.Request) -> web.Response:
        """The host dies; `terminate`: and the instance with it."""
        instance = self._instance(request)
        await self.hosts.kill(instance.instance_id)
        if (await request.json()).get("terminate"):
            await self.end(instance, "died")
        return web.json_response({})

    async def _interrupt(self, request: web.Request) -> web.Response:
        """As a cloud takes a spot instance back: a notice, and after `seconds` its end."""
        instance = self._instance(request)
        seconds = float((await request.json())["seconds"])
        moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
        self.hosts.interrupt(instance.instance_id, moment)
        task = asyncio.create_task(self._take_back(instance, seconds))
        self._interruptions.add(task)
        task.add_done_callback(self._interruptions.discard)
        return web.json_response({})

    async def _take_back(self, instance: Launched, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.end(instance, "interrupted")

    def _instance(self, request: web.Request) -> Launched:
        instance_id = request.match_info["id"]
        found = self.hosts.instance(instance_id)
        if found is None:
            raise web.HTTPNotFound(text=f"{instance_id} has no host")
        return found
