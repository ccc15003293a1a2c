"""One emulated cloud, from its start to its end: backend, proxy, hosts and network together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from emulation import backend as backends
from emulation.control import Control, End
from emulation.ec2 import Backend, Error, numbered, text
from emulation.faults import Fault, Faults
from emulation.hosting import Hosting
from emulation.hosts import Hosts, Launched
from emulation.launches import Launches
from emulation.listing import Listing
from emulation.metadata import Metadata
from emulation.program import told_to_end
from emulation.proxy import Proxy

REGION = "us-east-1"
_RECONCILE_SECONDS = 5
_IDS_AT_ONCE = 100
_FORM_BYTES = 64 << 20
"""The largest form that is read."""
_REASONS: dict[End, tuple[str, str]] = {
    "interrupted": ("Server.SpotInstanceTermination", "Spot instance termination"),
    "died": ("Server.InternalError", "as ordered"),
}
_log = logging.getLogger("emulation")


@dataclass(frozen=True)
class Description:
    """What a client has to know of a running emulation."""

    endpoint: str
    backend: str
    backend_endpoint: str
    network: str
    interface: str
    environment: dict[str, str]

    def as_json(self) -> str:
        return json.dumps(asdict(self))


class Cloud:
    def __init__(
        self,
        hosting: Hosting,
        process: backends.Process | backends.Elsewhere,
        port: int,
    ) -> None:
        self._hosting = hosting
        self._port = port
        self._process = process

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Description]:
        """Everything answers inside, and nothing is left of it after. Raises NoBackend."""
        client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )
        try:
            async with client:
                await self._process.wait(client)
                backend = Backend(self._process.url, client)
                # The first call makes the backend load its EC2, which takes seconds.
                await backend.ask(REGION, "DescribeVpcs")
                async with self._serving(backend) as description:
                    yield description
        finally:
            self._process.stop()

    @contextlib.asynccontextmanager
    async def _serving(self, backend: Backend) -> AsyncIterator[Description]:
        ours = self._hosting
        hosts = Hosts(ours.spawner, ours.network, ours.consoles, self._powered_off, Metadata)
        self._proxy = Proxy(backend, Launches(backend), Listing(backend), Faults(), hosts)
        await hosts.start()
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port, backlog=512)
        await site.start()
        reconciling = asyncio.create_task(self._reconcile())
        try:
            yield self._description(runner.addresses[0][1])
        finally:
            reconciling.cancel()
            await runner.cleanup()
            hosts.close()

    def _description(self, port: int) -> Description:
        endpoint = f"http://127.0.0.1:{port}"
        network = self._hosting.network
        environment = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            # Nobody counts calls here, unless a fault orders it.
            "TANGO_CLOUD_AWS__LAUNCH_BURST": "1000",
            "TANGO_CLOUD_AWS__NETWORK_CIDR": str(next(network.cidr.subnets(new_prefix=20))),
        }
        if network.reach:
            environment["TANGO_CLOUD_AWS__REACH"] = str(network.reach)
        name, url = self._process.name, self._process.url
        return Description(endpoint, name, url, str(network.cidr), network.interface, environment)

    def _application(self) -> web.Application:
        proxy, faults = self._proxy, self._proxy.faults
        control = Control(
            proxy.hosts,
            proxy.calls,
            lambda given: faults.order(Fault(**given)),
            faults.clear,
            self._end,
        )
        made = web.Application(client_max_size=_FORM_BYTES)
        made.add_routes(control.routes())
        made.router.add_route("*", "/{path:.*}", proxy.handle)
        return made

    async def _end(self, instance: Launched, why: End) -> None:
        await self._proxy.terminate(instance, *_REASONS[why])

    async def _powered_off(self, instance: Launched) -> None:
        """The host has shut itself down: what becomes of the instance is its own attribute."""
        backend = self._proxy.backend
        found = await backend.ask(
            instance.region,
            "DescribeInstanceAttribute",
            InstanceId=instance.instance_id,
            Attribute="instanceInitiatedShutdownBehavior",
        )
        if text(found, "instanceInitiatedShutdownBehavior/value") == "terminate":
            reason = ("Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
            await self._proxy.terminate(instance, *reason)
        else:
            stop = {"InstanceId.1": instance.instance_id}
            await backend.ask(instance.region, "StopInstances", **stop)
            await self._proxy.hosts.end([instance.instance_id])

    async def _reconcile(self) -> None:
        """End the hosts of instances that were ended past the proxy; end with the backend."""
        while True:
            await asyncio.sleep(_RECONCILE_SECONDS)
            if self._process.ended():
                _log.error("the backend has died: see %s", self._process.log)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            ids = self._proxy.hosts.ids()
            for start in range(0, len(ids), _IDS_AT_ONCE):
                try:
                    await self._reconcile_some(ids[start : start + _IDS_AT_ONCE])
                except (Error, aiohttp.ClientError) as error:
                    _log.warning("instances cannot be compared with hosts: %r", error)

    async def _reconcile_some(self, ids: list[str]) -> None:
        found = await self._proxy.backend.ask(
            REGION, "DescribeInstances", **numbered("InstanceId", ids)
        )
        states = {
            text(item, "instanceId"): text(item, "instanceState/name")
            for item in found.iterfind(".//instancesSet/item")
        }
        over = {i for i in ids if states.get(i) not in {"pending", "running"}}
        await self._proxy.ended(over)


async def run(folder: Path, hosting: Hosting, choice: str, port: int, *, as_json: bool) -> None:
    """The whole life of an emulation, until it is told to end. `choice` may be a URL.

    Raises NoBackend.
    """
    over = told_to_end(with_stdin=as_json)
    process = _backend(choice, folder / "backend")
    cloud = Cloud(hosting, process, port)
    async with cloud.running() as description:
        if as_json:
            print(description.as_json(), flush=True)
        else:
            _show(description)
        await over.wait()


def _backend(choice: str, folder: Path) -> backends.Process | backends.Elsewhere:
    if choice.startswith("http"):
        return backends.Elsewhere(choice)
    return backends.Process(backends.choose(choice), folder)


def _show(description: Description) -> None:
    print(f"# {description.backend}, with real hosts in {description.network}; Ctrl-C ends it")
    for name, value in description.environment.items():
        print(f"export {name}={value}", flush=True)
