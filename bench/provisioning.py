"""From "N machines wanted" to "N machines ready", with and without what we put around Terraform."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from bench import report
from bench.deployment import (
    FROM_PIP,
    GONE_SECONDS,
    ISOLATED,
    PREFIX,
    READY_SECONDS,
    Kind,
    fleet_of,
    settings_of,
)
from bench.series import Series
from tango_cloud.core import tags
from tango_cloud.core.ledger import new_uid
from tango_cloud.core.model import Endpoint, MachineKey, MachineRequest, Shape
from tango_cloud.core.settings import Settings
from tango_cloud.orchestration.fleet import Fleet
from tango_cloud.orchestration.inventory import Inventory
from tango_cloud.orchestration.keys import client_key, make_key_pair
from tango_cloud.orchestration.site import Site, Sites
from tango_cloud.orchestration.stacks import Stacks
from tango_cloud.providers.protocol import Bootstrap
from tango_cloud.terraform.modules import modules_root
from tango_cloud.transports.protocol import Session
from tango_cloud.transports.ssh import SshTransport
from tango_cloud.wiring import build_provider, state_folder

ROUNDS: Mapping[int, int] = {1: 5, 10: 3, 50: 1}
SEPARATE_UP_TO: Mapping[Kind, int] = {ISOLATED: 50, FROM_PIP: 10}
"""Beyond it the separate applies would take minutes."""
OURS, SEPARATE, DIRECT = "ours", "separate applies", "no Terraform"
_Item = TypeVar("_Item")
_LIFETIME = 3600.0
_SHAPE = Shape("local.img")


def main() -> None:
    report.say("## From N machines wanted to N machines ready")
    report.say(
        "Seconds, medians of "
        + ", ".join(f"{rounds} (N = {count})" for count, rounds in ROUNDS.items())
        + " rounds. Ready means the same everywhere: connected with the expected host key, and "
        "that key replaced by one made on the machine. `separate applies`: one state and one apply "
        "for each machine, one after another, each waited for. `no Terraform`: the same servers, "
        "started directly, all at once. Terraform is initialised and the envelope there before; "
        "`first` is a first machine in an empty state folder, where they are not."
    )
    rows: list[Sequence[str]] = []
    for kind in (ISOLATED, FROM_PIP):
        obstacle = kind.obstacle()
        if obstacle:
            report.say(f"Left out: machines of the kind {kind}: {obstacle}")
        else:
            rows += _rows(kind)
    report.table(
        ["machines", "N", OURS, SEPARATE, DIRECT, f"{SEPARATE} / {OURS}", f"{OURS} / {DIRECT}"],
        rows,
    )


def _rows(kind: Kind) -> list[Sequence[str]]:
    with settings_of(kind) as settings, fleet_of(settings) as fleet:
        first = Series()
        _measure(first, OURS, _Fleet(fleet, settings), 1)
        ways = {
            OURS: _Fleet(fleet, settings),
            SEPARATE: _Separate(settings),
            DIRECT: _Direct(settings),
        }
        rows: list[Sequence[str]] = [
            [str(kind), "first", f"{first.median(OURS):.2f}", "-", "-", "-", "-"]
        ]
        for count, rounds in ROUNDS.items():
            series = Series()
            report.progress(f"{count} machines, {kind}")
            for number in range(rounds):
                for name in _rotated(list(ways), number):
                    if name != SEPARATE or count <= SEPARATE_UP_TO[kind]:
                        _measure(series, name, ways[name], count)
            rows.append([str(kind), str(count), *_cells(series)])
        return rows


def _rotated(names: list[str], turn: int) -> list[str]:
    start = turn % len(names)
    return names[start:] + names[:start]


def _measure(series: Series, name: str, way: _Way, count: int) -> None:
    try:
        with series.timing(name):
            way.make(count)
    finally:
        way.remove()


def _cells(series: Series) -> list[str]:
    ours, direct = series.median(OURS), series.median(DIRECT)
    if not series.count(SEPARATE):
        return [f"{ours:.2f}", "not run", f"{direct:.2f}", "-", report.times(ours / direct)]
    separate = series.median(SEPARATE)
    return [
        f"{ours:.2f}",
        f"{separate:.2f}",
        f"{direct:.2f}",
        report.times(separate / ours),
        report.times(ours / direct),
    ]


class _Way:
    """A way to make machines. `make` returns when all are ready, `remove` when all are gone."""

    def make(self, count: int) -> None:
        raise NotImplementedError

    def remove(self) -> None:
        raise NotImplementedError


class _Fleet(_Way):
    """Ours: everything is asked for at once, and waited for side by side."""

    def __init__(self, fleet: Fleet, settings: Settings) -> None:
        self._fleet = fleet
        self._provider = settings.provider
        self._keys: list[MachineKey] = []

    def make(self, count: int) -> None:
        self._keys = [
            self._fleet.request_next(self._provider, _SHAPE, _LIFETIME).key for _ in range(count)
        ]
        _at_once(lambda key: self._fleet.wait(key, READY_SECONDS), self._keys)

    def remove(self) -> None:
        _at_once(lambda key: self._fleet.destroy_and_wait(key, GONE_SECONDS), self._keys)


class _Bare(_Way):
    """What the other ways have in common: machines that no ledger knows of."""

    def __init__(self, settings: Settings) -> None:
        folder = state_folder(settings)
        self._provider = build_provider(settings)
        self._key = client_key(folder)
        inventory = Inventory(self._provider, PREFIX)
        sites = Sites({settings.provider: Site(self._provider, inventory)})
        self._stacks = Stacks(settings, folder, sites)
        self._sessions: list[Session] = []
        self._transport = SshTransport()

    def remove(self) -> None:
        for session in self._sessions:
            session.close()
        self._sessions.clear()
        self._provider.terminate(i.instance_id for i in self._provider.instances(PREFIX))

    def _order(self) -> tuple[MachineRequest, str]:
        """A machine to ask for, and the host key it will answer with."""
        uid = new_uid()
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        expires = now + dt.timedelta(seconds=_LIFETIME)
        pair = make_key_pair()
        told = Bootstrap(pair.private, pair.public, self._key.public, expires)
        request = MachineRequest(
            uid=uid,
            key=MachineKey(PREFIX, 1, "bench"),
            shape=_SHAPE,
            offer=self._provider.offers(_SHAPE)[0],
            tags={tags.DEPLOYMENT: PREFIX, tags.ID: "1", tags.NAME: "bench", tags.UID: uid},
            expires=expires,
            user_data=self._provider.user_data(told),
        )
        return request, pair.public

    def _greet(self, uid: str, host_key: str) -> None:
        found = next(i for i in self._provider.instances(PREFIX) if i.uid == uid)
        endpoint = Endpoint(
            found.address, found.port, found.username, (host_key,), str(self._key.file)
        )
        session = self._transport.connect(endpoint, READY_SECONDS)
        self._sessions.append(session)
        session.stage_host_key()
        session.activate_host_key()


class _Separate(_Bare):
    """A state and an apply for each machine, one after another, with our runner and our options."""

    def make(self, count: int) -> None:
        for _ in range(count):
            request, host_key = self._order()
            applied = self._stacks.apply(
                self._provider.name,
                request.uid,
                [request],
                on_created=lambda _: None,
                on_start=lambda _: None,
            )
            if applied.failure is not None:
                raise applied.failure
            self._greet(request.uid, host_key)


class _Direct(_Bare):
    """The program that Terraform would run, run without Terraform."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._envelope: Mapping[str, Any] = self._provider.envelope_variables(PREFIX)

    def make(self, count: int) -> None:
        _at_once(lambda _: self._make_one(), range(count))

    def _make_one(self) -> None:
        request, host_key = self._order()
        order = {
            **_mapping(self._provider.wave_machines([request])[request.uid]),
            **self._envelope,
            **_place(request.uid, str(self._envelope["addresses"])),
            "uid": request.uid,
            "instance_id": f"i-{request.uid}",
            "wave": "none",
        }
        program = modules_root() / "local" / "wave" / "machine"
        told = {"TANGO_MACHINE": json.dumps(order), "TANGO_USER_DATA": request.user_data}
        subprocess.run(
            [str(self._envelope["python"]), "-I", "-S", str(program), "start"],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            env={**os.environ, **told},
        )
        self._greet(request.uid, host_key)


def _place(uid: str, addresses: str) -> Mapping[str, object]:
    """A machine's address and port: any will do that other machines do not have."""
    network = ipaddress.ip_network(addresses)
    return {
        "address": str(network[int(uid[:6], 16) % network.num_addresses]),
        "port": 10240 + int(uid[6:], 16) % 20000,
    }


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"not an object: {value!r}")
    return value


def _at_once(what: Callable[[_Item], object], items: Sequence[_Item]) -> None:
    """Do it for all at the same time; raises what the first one to fail raised."""
    with ThreadPoolExecutor(max(1, len(items))) as pool:
        for done in [pool.submit(what, item) for item in items]:
            done.result()


if __name__ == "__main__":
    report.say(report.host())
    began = time.monotonic()
    main()
    report.progress(f"took {time.monotonic() - began:.0f} s")
