"""What is asked of the emulation itself, below /_emulation/ on the proxy. JSON both ways."""

from __future__ import annotations

import asyncio
import datetime as dt

from aiohttp import web

from emulation.faults import Fault
from emulation.hosts import Launched
from emulation.proxy import Proxy

_FORM_BYTES = 64 << 20
"""The largest form that is read."""
_INTERRUPTED = ("Server.SpotInstanceTermination", "Spot instance termination")


class Control:
    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._interruptions: set[asyncio.Task[None]] = set()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/_emulation/calls", self._calls),
            web.delete("/_emulation/calls", self._reset_calls),
            web.post("/_emulation/faults", self._order),
            web.delete("/_emulation/faults", self._clear),
            web.get("/_emulation/hosts", self._hosts),
            web.post("/_emulation/hosts/{id}/kill", self._kill),
            web.post("/_emulation/hosts/{id}/interrupt", self._interrupt),
        ]

    async def _calls(self, _: web.Request) -> web.Response:
        return web.json_response(self._proxy.calls)

    async def _reset_calls(self, _: web.Request) -> web.Response:
        self._proxy.calls.clear()
        return web.json_response({})

    async def _order(self, request: web.Request) -> web.Response:
        try:
            self._proxy.faults.order(Fault(**await request.json()))
        except (TypeError, ValueError) as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return web.json_response({})

    async def _clear(self, _: web.Request) -> web.Response:
        self._proxy.faults.clear()
        return web.json_response({})

    async def _hosts(self, _: web.Request) -> web.Response:
        return web.json_response(self._proxy.hosts.table())

    async def _kill(self, request: web.Request) -> web.Response:
        """The host dies; `terminate`: and the instance with it."""
        instance = self._instance(request)
        await self._proxy.hosts.kill(instance.instance_id)
        if (await request.json()).get("terminate"):
            await self._proxy.terminate(instance, "Server.InternalError", "as ordered")
        return web.json_response({})

    async def _interrupt(self, request: web.Request) -> web.Response:
        """As EC2 takes a spot instance back: a notice, and after `seconds` its end."""
        instance = self._instance(request)
        seconds = float((await request.json())["seconds"])
        moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
        self._proxy.hosts.interrupt(instance.instance_id, moment)
        task = asyncio.create_task(self._take_back(instance, seconds))
        self._interruptions.add(task)
        task.add_done_callback(self._interruptions.discard)
        return web.json_response({})

    async def _take_back(self, instance: Launched, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._proxy.terminate(instance, *_INTERRUPTED)

    def _instance(self, request: web.Request) -> Launched:
        instance_id = request.match_info["id"]
        found = self._proxy.hosts.instance(instance_id)
        if found is None:
            raise web.HTTPNotFound(text=f"{instance_id} has no host")
        return found


def application(proxy: Proxy) -> web.Application:
    made = web.Application(client_max_size=_FORM_BYTES)
    made.add_routes(Control(proxy).routes())
    made.router.add_route("*", "/{path:.*}", proxy.handle)
    return made
