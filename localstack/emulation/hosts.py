"""The host agent: which instance has a host, and what has become of it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from aiohttp import web

from emulation import cloud_config
from emulation.hosting import console_of
from emulation.keys import new_key
from emulation.loopback import Loopback
from emulation.network import Network
from emulation.spawner import PACKET, Spawner

_TOLD = ("instance_id", "address", "image", "instance_type", "zone", "region", "market")
_log = logging.getLogger("emulation.hosts")


@dataclass(frozen=True)
class Launched:
    """An instance as its cloud tells of it, and the user data that it was given."""

    instance_id: str
    address: str
    image: str
    instance_type: str
    zone: str
    region: str
    market: str
    user_data: str
    hostname: str = ""
    """Of the host; without one it is named after its address."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What else the cloud tells it about itself."""


@dataclass(frozen=True)
class Facts:
    """What an instance can learn about itself."""

    instance: Launched
    interruption: dt.datetime | None = None
    """When it will be taken back, once that is known."""


Find = Callable[[str], Facts | None]
"""The facts of the instance with an address; None when there is none, or its host is off."""
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Metadata = Callable[[Find], Handler]
"""The metadata service of a cloud: answers what hosts ask at 169.254.169.254, port 80. Who asks is
known by the address of the request (`remote`)."""


@dataclass(frozen=True)
class Trouble:
    """What a host is to suffer from."""

    delay: float = 0.0
    """Seconds from the instance's running to the beginning of its boot."""
    boots: bool = True
    ssh: bool = True
    own_host_key: bool = True


@dataclass
class _Host:
    instance: Launched
    status: str = "booting"
    """Then `ready` or `failed: ...`; `off` when it has died while its instance lives on."""
    interruption: dt.datetime | None = None
    started: bool = False
    starting: asyncio.Task[None] | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    host_keys: list[str] = field(default_factory=list)
    """Those that it has made and published."""
    own_host_key: bool = True


class Hosts:
    """`on_poweroff` is told of an instance whose host has been shut down from inside."""

    def __init__(
        self,
        spawner: Spawner,
        network: Network | Loopback,
        consoles: Path,
        on_poweroff: Callable[[Launched], Awaitable[None]],
        metadata: Metadata,
    ) -> None:
        self._spawner = spawner
        self._network = network
        self._consoles = consoles
        self._on_poweroff = on_poweroff
        self._metadata = metadata(self._facts)
        self._hosts: dict[str, _Host] = {}
        self._sending = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for end in (self._spawner.commands, self._spawner.events):
            end.setblocking(False)
        loop.add_reader(self._spawner.events, self._read_events)
        if self._spawner.metadata:
            metadata = web.Server(self._metadata)
            self._server = await loop.create_server(metadata, sock=self._spawner.metadata)

    def close(self) -> None:
        """The spawner's death is every host's."""
        asyncio.get_running_loop().remove_reader(self._spawner.events)
        if self._server:
            self._server.close()
        for end in (self._spawner.commands, self._spawner.events):
            end.close()

    def launch(self, instance: Launched, trouble: Trouble) -> None:
        """Give the instance a host, if its user data is for cloud-init. Returns at once."""
        if not instance.user_data.startswith(cloud_config.HEADER):
            return  # somebody else's: a record is enough for it
        own = trouble.own_host_key
        host = self._hosts[instance.instance_id] = _Host(instance, own_host_key=own)
        try:
            config = cloud_config.parse(instance.user_data) or {}
            self._check_address(instance)
        except (cloud_config.Refused, ValueError) as error:
            self._fail(host, str(error))
            return
        self._network.open(instance.address)
        order = {
            "id": instance.instance_id,
            "address": instance.address,
            "hostname": instance.hostname or "host-" + instance.address.replace(".", "-"),
            "console": str(console_of(self._consoles, instance.instance_id)),
            "sshd": trouble.ssh,
            "config": config
            if own or "ssh_keys" not in config
            else {**config, "ssh_keys": new_key()},
        }
        if trouble.boots:
            host.starting = self._spawn(self._start(host, order, trouble.delay))

    async def _start(self, host: _Host, order: dict[str, Any], delay: float) -> None:
        if delay:
            await asyncio.sleep(delay)
        host.started = True
        await self._command({"start": order})

    def _check_address(self, instance: Launched) -> None:
        if IPv4Address(instance.address) not in self._network.cidr:
            raise ValueError(f"its address {instance.address} is not in {self._network.cidr}")
        for other in self._hosts.values():
            if other.instance.address == instance.address and other.started:
                raise ValueError(f"{instance.address} is {other.instance.instance_id}'s already")

    async def end(self, instance_ids: Iterable[str]) -> None:
        """Returns when the hosts of these instances are gone; without one is success."""
        ending = [host for i in instance_ids if (host := self._hosts.get(i))]
        for host in ending:
            await self._kill(host)
        for host in ending:
            if host.started:
                await host.gone.wait()
            if self._hosts.pop(host.instance.instance_id, None):
                self._network.forget(host.instance.address)

    async def kill(self, instance_id: str) -> None:
        """The host dies, its instance does not notice. Raises LookupError when there is none."""
        host = self._hosts[instance_id]
        await self._kill(host)
        if host.started:
            await host.gone.wait()

    async def _kill(self, host: _Host) -> None:
        if host.starting and not host.started:
            host.starting.cancel()
        elif not host.gone.is_set():
            await self._command({"kill": host.instance.instance_id})

    def interrupt(self, instance_id: str, moment: dt.datetime) -> None:
        """Announce the interruption. Raises LookupError when the instance has no host."""
        self._hosts[instance_id].interruption = moment

    def table(self) -> list[dict[str, str]]:
        return [
            {
                **{name: getattr(host.instance, name) for name in _TOLD},
                "status": host.status,
            }
            for host in self._hosts.values()
        ]

    def host_keys(self, instance_id: str) -> list[str]:
        host = self._hosts.get(instance_id)
        return host.host_keys if host else []

    def instance(self, instance_id: str) -> Launched | None:
        host = self._hosts.get(instance_id)
        return host.instance if host else None

    def ids(self) -> list[str]:
        return list(self._hosts)

    async def _command(self, command: dict[str, Any]) -> None:
        async with self._sending:
            packet = json.dumps(command).encode()
            await asyncio.get_running_loop().sock_sendall(self._spawner.commands, packet)

    def _read_events(self) -> None:
        while True:
            try:
                packet = self._spawner.events.recv(PACKET)
            except BlockingIOError:
                return
            if not packet:
                raise SystemExit("the spawner has died")
            self._note(json.loads(packet))

    def _note(self, event: dict[str, str]) -> None:
        host = self._hosts.get(event.get("id", ""))
        if host is None:
            return
        match event["event"]:
            case "ready" if host.status == "booting":
                host.status = "ready"
            case "host_key":
                host.host_keys.append(
                    event["key"] if host.own_host_key else new_key()["ed25519_public"]
                )
            case "failed":
                self._fail(host, event["reason"])
            case "poweroff":
                self._spawn(self._on_poweroff(host.instance))
            case "ended":
                host.gone.set()
                if not host.status.startswith("failed"):
                    host.status = "off"

    def _fail(self, host: _Host, reason: str) -> None:
        host.status = f"failed: {reason}"
        _log.error("%s failed: %s", host.instance.instance_id, reason)

    def _facts(self, address: str) -> Facts | None:
        for host in self._hosts.values():
            instance = host.instance
            if instance.address == address and host.started and not host.gone.is_set():
                return Facts(instance, host.interruption)
        return None

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        async def guarded() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await work

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
