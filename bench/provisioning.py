"""From "N machines wanted" to "N machines ready", with and without what we put around Terraform."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench import report
from bench.deployment import (
    FROM_PIP,
    ISOLATED,
    PREFIX,
    Kind,
    fleet_of,
    settings_of,
)
from bench.series import Series
from bench.ways import BareWay, OurWay, Way, at_once
from tango_cloud.core.model import Shape
from tango_cloud.core.settings import Settings
from tango_cloud.terraform.modules import modules_root

ROUNDS: Mapping[int, int] = {1: 5, 10: 3, 50: 1}
SEPARATE_UP_TO: Mapping[Kind, int] = {ISOLATED: 50, FROM_PIP: 10}
"""Beyond it the separate applies would take minutes."""
OURS, SEPARATE, DIRECT = "ours", "separate applies", "no Terraform"
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
        _measure(first, OURS, OurWay(fleet, _SHAPE), 1)
        ways = {
            OURS: OurWay(fleet, _SHAPE),
            SEPARATE: _Separate(settings, _SHAPE),
            DIRECT: _Direct(settings, _SHAPE),
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


def _measure(series: Series, name: str, way: Way, count: int) -> None:
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


class _Separate(BareWay):
    """A state and an apply for each machine, one after another, with our runner and our options."""

    def make(self, count: int) -> None:
        for _ in range(count):
            request, host_key = self.order()
            applied = self._stacks.apply(
                self._provider.name,
                request.uid,
                [request],
                on_created=lambda _: None,
                on_start=lambda _: None,
            )
            if applied.failure is not None:
                raise applied.failure
            self.greet(request.uid, host_key)


class _Direct(BareWay):
    """The program that Terraform would run, run without Terraform."""

    def __init__(self, settings: Settings, shape: Shape) -> None:
        super().__init__(settings, shape)
        self._envelope: Mapping[str, Any] = self._provider.envelope_variables(PREFIX)

    def make(self, count: int) -> None:
        at_once(lambda _: self._make_one(), range(count))

    def _make_one(self) -> None:
        request, host_key = self.order()
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
        self.greet(request.uid, host_key)


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


if __name__ == "__main__":
    report.say(report.host())
    began = time.monotonic()
    main()
    report.progress(f"took {time.monotonic() - began:.0f} s")
