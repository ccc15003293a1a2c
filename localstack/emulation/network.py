"""The network of one emulation: a /16 that no other has, and a router in a namespace of its own.

    this machine - te<n> .2 ===== .1 up0 - router - h1 ===== eth0 - host
                                             |      h2 ===== eth0 - host
                                       169.254.169.254

All of it hangs on processes: when they are dead, however they died, the kernel removes it. Only the
`unreachable` route stays behind an emulation that was killed, until the next start: it keeps late
connections to hosts that are gone from leaving this machine.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import random
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

METADATA_ADDRESS = "169.254.169.254"
_RECORDS = Path("/run/tango-cloud-emulation")
"""A file for each network in use, locked by the emulation that uses it."""
CANDIDATES = tuple(ipaddress.IPv4Network(f"10.{n}.0.0/16") for n in range(128, 255))
_LAST_RESORT = 4_000_000_000
"""Metric of the unreachable route: the route to the router goes before it."""
_GONE_SECONDS = 15


class NoNetwork(Exception):
    """No network is free, or this process may not make one. The message is for a person."""


def ip(lines: Iterable[str]) -> None:
    """Run the lines by one `ip -batch`. Raises NoNetwork with what it says."""
    done = subprocess.run(
        ["ip", "-force", "-batch", "-"],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NoNetwork(done.stderr.strip())


class Network:
    """A network of ours from its making to `close`. Raises NoNetwork when none can be had."""

    reach: Path | None = None
    """The file that translates its addresses; none of them needs it. See `loopback.py`."""

    def __init__(self, wanted: str | None = None) -> None:
        self.cidr, self._record = _claim(wanted)
        self.interface = f"te{self.cidr.network_address.packed[1]}"
        self.gateway, self._source = str(self.cidr[1]), str(self.cidr[2])

    def note(self, folders: Iterable[Path]) -> None:
        """Have the next start remove these, should we be killed."""
        json.dump([str(folder) for folder in folders], self._record)
        self._record.flush()

    def make_router(self, peer: int) -> None:
        """In the process that is to be the router, already in a network namespace of its own.

        `peer` is a process in the namespace of this machine: its end is made there.
        """
        for name, value in (
            ("ipv6/conf/default/disable_ipv6", "1"),
            ("ipv6/conf/all/disable_ipv6", "1"),
            ("ipv4/ip_forward", "1"),
        ):
            file = Path("/proc/sys/net") / name
            if file.exists():  # there are kernels without IPv6
                file.write_text(value)
        ip(
            [
                "link set lo up",
                f"addr add {METADATA_ADDRESS}/32 dev lo",
                f"link add up0 type veth peer name {self.interface} netns {peer}",
                f"addr add {self.gateway}/32 dev up0",
                "link set up0 up",
                f"route add {self._source} dev up0",
                f"route add unreachable {self.cidr}",
            ]
        )

    def reach_router(self) -> None:
        """On this machine, when the router is there."""
        ip(
            [
                f"addr add {self._source}/32 dev {self.interface}",
                f"link set {self.interface} up",
                f"route add {self.gateway} dev {self.interface}",
                f"route add {self.cidr} via {self.gateway} dev {self.interface} src {self._source}",
            ]
        )

    def open(self, address: str) -> None:
        """An instance has it."""

    def forget(self, address: str) -> None:
        """The instance is gone."""

    def wait_until_gone(self) -> None:
        """Once the router is dead the kernel removes its end of the link, and ours with it."""
        deadline = time.monotonic() + _GONE_SECONDS
        while Path("/sys/class/net", self.interface).exists():
            if time.monotonic() > deadline:
                raise NoNetwork(f"{self.interface} does not go")
            time.sleep(0.01)

    def close(self) -> None:
        """When the router is gone."""
        _release(self.cidr)
        Path(self._record.name).unlink()
        self._record.close()


def _claim(wanted: str | None) -> tuple[ipaddress.IPv4Network, IO[str]]:
    """A network that nobody on this machine uses, held by the lock on its open record."""
    _RECORDS.mkdir(mode=0o700, exist_ok=True)
    with (_RECORDS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_leftovers()
        routes = _routes()
        # By chance, so that nobody soon gets what somebody has just given up and still looks at.
        choice = random.sample(CANDIDATES, len(CANDIDATES))
        for cidr in [ipaddress.IPv4Network(wanted)] if wanted else choice:
            if not any(cidr.overlaps(route) for route in routes):
                break
        else:
            raise NoNetwork(f"no network is free: {wanted or 'all of 10.128.0.0/9 have routes'}")
        record = record_of(cidr).open("w")
        fcntl.flock(record, fcntl.LOCK_EX)
        ip([f"route add unreachable {cidr} metric {_LAST_RESORT}"])
        return cidr, record


def _remove_leftovers() -> None:
    """Of emulations that were killed: nobody holds their records. The caller holds the lock."""
    for path in _RECORDS.glob("*.json"):
        with path.open("r+") as record:
            try:
                fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            text = record.read()
            for folder in json.loads(text or "[]"):
                shutil.rmtree(folder, ignore_errors=True)
            _release(ipaddress.IPv4Network(path.stem.replace("-", "/")))
            path.unlink()


def _release(cidr: ipaddress.IPv4Network) -> None:
    if cidr in _routes():
        ip([f"route del unreachable {cidr} metric {_LAST_RESORT}"])


def record_of(cidr: ipaddress.IPv4Network) -> Path:
    """There as long as somebody uses the network."""
    return _RECORDS / f"{cidr}.json".replace("/", "-")


def _routes() -> list[ipaddress.IPv4Network]:
    """Where this machine's routes lead, the default route left out."""
    shown = subprocess.run(
        ["ip", "-json", "-4", "route", "show", "table", "all"],
        capture_output=True,
        check=True,
    )
    places = [route["dst"] for route in json.loads(shown.stdout)]
    return [ipaddress.IPv4Network(place) for place in places if place != "default"]
