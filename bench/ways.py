"""Ways to make machines, each with the same notion of ready, to be timed side by side."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bench.deployment import GONE_SECONDS, PREFIX, READY_SECONDS
from tango_cloud.core import tags
from tango_cloud.core.errors import MachineDamaged, MachineUnreachable
from tango_cloud.core.ledger import new_uid
from tango_cloud.core.model import (
    Endpoint,
    Instance,
    InstanceStatus,
    MachineKey,
    MachineRequest,
    Shape,
)
from tango_cloud.core.settings import Settings
from tango_cloud.orchestration.fleet import Fleet
from tango_cloud.orchestration.inventory import Inventory
from tango_cloud.orchestration.keys import client_key, make_key_pair
from tango_cloud.orchestration.site import Site, Sites
from tango_cloud.orchestration.stacks import Stacks
from tango_cloud.providers.protocol import Bootstrap
from tango_cloud.transports.protocol import Session
from tango_cloud.transports.ssh import SshTransport
from tango_cloud.wiring import build_provider, state_folder

LIFETIME = 3600.0
_LOOK_SECONDS = 0.02
_TRIES = 10
_Item = TypeVar("_Item")


class Way:
    """A way to make machines. `make` returns when all are ready, `remove` when all are gone."""

    def __init__(self) -> None:
        self._first = threading.Event()
        self.first = 0.0
        """When the first machine of the last `make` was ready, by the monotonic clock."""

    def begin(self) -> None:
        self._first.clear()

    def one_is_ready(self) -> None:
        if not self._first.is_set():
            self._first.set()
            self.first = time.monotonic()

    def make(self, count: int) -> None:
        raise NotImplementedError

    def settle(self) -> None:
        """Wait for what goes on after all are ready."""

    def remove(self) -> None:
        raise NotImplementedError


class OurWay(Way):
    """Ours: everything is asked for at once, and waited for side by side."""

    def __init__(self, fleet: Fleet, shape: Shape) -> None:
        super().__init__()
        self._fleet = fleet
        self._shape = shape
        self._keys: list[MachineKey] = []

    def make(self, count: int) -> None:
        self._keys = [self._fleet.request_next(self._shape, LIFETIME).key for _ in range(count)]
        at_once(self._wait, self._keys)

    def _wait(self, key: MachineKey) -> None:
        self._fleet.wait(key, READY_SECONDS)
        self.one_is_ready()

    def remove(self) -> None:
        at_once(lambda key: self._fleet.destroy_and_wait(key, GONE_SECONDS), self._keys)


class BareWay(Way):
    """What the other ways have in common: machines that no ledger knows of."""

    def __init__(self, settings: Settings, shape: Shape) -> None:
        super().__init__()
        folder = state_folder(settings)
        self._shape = shape
        (name,) = settings.provider
        self._provider = build_provider(settings, name)
        self._key = client_key(folder)
        self._inventory = Inventory(self._provider, PREFIX)
        sites = Sites({name: Site(self._provider, self._inventory)})
        self._stacks = Stacks(settings, folder, sites)
        self._sessions: list[Session] = []
        self._transport = SshTransport()

    def close(self) -> None:
        for session in self._sessions:
            session.close()
        self._sessions.clear()

    def remove(self) -> None:
        self.close()
        self._provider.terminate(i.instance_id for i in self._provider.instances(PREFIX))

    def order(self) -> tuple[MachineRequest, str]:
        """A machine to ask for, and the host key it will answer with."""
        uid = new_uid()
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        expires = now + dt.timedelta(seconds=LIFETIME)
        pair = make_key_pair()
        told = Bootstrap(pair.private, pair.public, (self._key.public,), expires)
        request = MachineRequest(
            uid=uid,
            key=MachineKey(PREFIX, 1, "bench"),
            shape=self._shape,
            offer=self._provider.offers(self._shape)[0],
            tags={
                tags.DEPLOYMENT: PREFIX,
                tags.ID: "1",
                tags.NAME: "bench",
                tags.UID: uid,
                tags.WAVE: "0" * 12,
                tags.EXPIRES: str(int(expires.timestamp())),
            },
            expires=expires,
            user_data=self._provider.user_data(told),
        )
        return request, pair.public

    def find(self, uid: str) -> Instance:
        """The machine, once it runs. Listings are shared by all who want one."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            for instance in self._inventory.recent():
                if instance.uid == uid and instance.status is InstanceStatus.RUNNING:
                    return instance
            time.sleep(_LOOK_SECONDS)
        raise TimeoutError(uid)

    def greet(self, uid: str, host_key: str) -> None:
        """Hundreds at once on a few cores: what takes too long is tried again, as we do it."""
        found = self.find(uid)
        keys: tuple[str, ...] = (host_key,)
        for _ in range(_TRIES):
            session = self._connect(self._endpoint(found, keys))
            try:
                fresh = session.stage_host_key()
                keys = (fresh, host_key)
                session.activate_host_key()
            except (MachineDamaged, MachineUnreachable):
                session.close()
                continue
            self._sessions.append(session)
            self.one_is_ready()
            return
        raise TimeoutError(uid)

    def _endpoint(self, found: Instance, keys: tuple[str, ...]) -> Endpoint:
        return Endpoint(
            found.address,
            found.port,
            found.username,
            keys,
            str(self._key.file),
            compress=self._provider.compress,
            sudo=self._provider.sudo,
        )

    def _connect(self, endpoint: Endpoint) -> Session:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                return self._transport.connect(endpoint, READY_SECONDS)
            except MachineUnreachable:  # it has an address before it has booted
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOOK_SECONDS)


def at_once(what: Callable[[_Item], object], items: Sequence[_Item]) -> None:
    """Do it for all at the same time; raises what the first one to fail raised."""
    with ThreadPoolExecutor(max(1, len(items))) as pool:
        for done in [pool.submit(what, item) for item in items]:
            done.result()
