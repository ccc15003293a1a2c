"""One emulated cloud, from its start to its end: API, hosts and network together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

from aiohttp import web
from emulation.control import Control, End
from emulation.hosting import Hosting, console_of
from emulation.hosts import Hosts, Launched
from emulation.program import told_to_end

from . import catalog
from .api import QUIET, Api
from .discovery import ROOT, Discovery
from .faults import Fault
from .metadata import Metadata

_BODY_BYTES = 4 << 20
"""The largest request that is read."""


@dataclass(frozen=True)
class Description:
    """What a client has to know of a running emulation."""

    endpoint: str
    backend_endpoint: str
    network: str
    interface: str
    environment: dict[str, str]


class Cloud:
    def __init__(self, hosting: Hosting, port: int) -> None:
        self._hosting = hosting
        self._port = port
        self._api = Api(Discovery(), console=self._console)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Description]:
        """Everything answers inside."""
        ours, instances = self._hosting, self._api.instances
        hosts = Hosts(ours.spawner, ours.network, ours.consoles, instances.powered_off, Metadata)
        instances.hosts = hosts
        await hosts.start()
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(hosts.close)
            endpoint = await stack.enter_async_context(self._serving(self._port, quiet=False))
            backend = await stack.enter_async_context(self._serving(0, quiet=True))
            yield self._description(endpoint, backend)

    @contextlib.asynccontextmanager
    async def _serving(self, port: int, *, quiet: bool) -> AsyncIterator[str]:
        application = web.Application(client_max_size=_BODY_BYTES)
        application[QUIET] = quiet
        if not quiet:
            application.add_routes(self._control())
        application.router.add_route("*", "/{path:.*}", self._api.handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port, backlog=512).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    def _control(self) -> list[web.RouteDef]:
        api = self._api
        control = Control(
            api.instances.hosts,
            api.calls,
            lambda given: api.faults.order(Fault(**given)),
            api.faults.clear,
            self._end,
        )
        return [
            *control.routes(),
            web.get("/_emulation/malformed", self._malformed),
            web.delete("/_emulation/malformed", self._forget_malformed),
            web.get("/_emulation/methods", self._methods),
        ]

    async def _malformed(self, _: web.Request) -> web.Response:
        return web.json_response(self._api.malformed)

    async def _forget_malformed(self, _: web.Request) -> web.Response:
        self._api.malformed.clear()
        return web.json_response({})

    async def _methods(self, _: web.Request) -> web.Response:
        return web.json_response(sorted(self._api.emulated))

    async def _end(self, instance: Launched, why: End) -> None:
        if why == "interrupted":
            self._api.instances.take_back(instance.instance_id, "preempted")
        else:
            self._api.instances.delete_by_others(instance.instance_id)

    def _console(self, instance_id: str) -> str:
        path = console_of(self._hosting.consoles, instance_id)
        return path.read_text(errors="replace") if path.exists() else ""

    def _description(self, endpoint: str, backend: str) -> Description:
        network = self._hosting.network
        environment = {
            "GOOGLE_COMPUTE_CUSTOM_ENDPOINT": f"{endpoint}{ROOT}",
            "GOOGLE_PROJECT": catalog.PROJECT,
            "GOOGLE_CLOUD_PROJECT": catalog.PROJECT,
            "GOOGLE_OAUTH_ACCESS_TOKEN": "dummy",
            # Whoever looks for credentials on a machine of Google's: this is none.
            "NO_GCE_CHECK": "true",
            "TANGO_CLOUD_GCP__PROJECT": catalog.PROJECT,
            "TANGO_CLOUD_GCP__NETWORK_CIDR": str(next(network.cidr.subnets(new_prefix=20))),
        }
        if network.reach:
            environment["TANGO_CLOUD_GCP__REACH"] = str(network.reach)
        return Description(endpoint, backend, str(network.cidr), network.interface, environment)


async def run(hosting: Hosting, port: int, *, as_json: bool) -> None:
    """The whole life of an emulation, until it is told to end."""
    over = told_to_end(with_stdin=as_json)
    async with Cloud(hosting, port).running() as description:
        if as_json:
            lines = [json.dumps(asdict(description))]
        else:
            lines = [f"# real hosts in {description.network}; Ctrl-C ends it"]
            lines += [f"export {name}={value}" for name, value in description.environment.items()]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
        await over.wait()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
