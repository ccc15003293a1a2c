"""The network of an emulation without root: its addresses are translated to loopback.

A host with the address 10.200.3.4 listens at 127.200.3.4, always on the same port. Who wants to
reach it looks that up in a file, which says nothing of instances that are gone:

    {"10.200.3.4": {"address": "127.200.3.4", "port": 10022, "username": "me"}}
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import pwd
import random
import socket
from pathlib import Path

from emulation.network import CANDIDATES, NoNetwork

PORT = 10022
"""Below those that outgoing connections get."""


class Loopback:
    """A network of ours from its making to `close`. Raises NoNetwork when none can be had."""

    interface = ""

    def __init__(self, wanted: str | None, reach: Path) -> None:
        self.cidr, self._claim = _claim(wanted)
        self.reach = reach
        self._known: dict[str, dict[str, object]] = {}
        self._write()

    def open(self, address: str) -> None:
        """From now on the address is translated."""
        self._known[address] = {
            "address": translated(address),
            "port": PORT,
            "username": login(),
        }
        self._write()

    def forget(self, address: str) -> None:
        if self._known.pop(address, None):
            self._write()

    def _write(self) -> None:
        new = self.reach.with_suffix(".new")
        new.write_text(json.dumps(self._known))
        new.rename(self.reach)

    def close(self) -> None:
        self._claim.close()


def translated(address: str) -> str:
    return f"127.{address.partition('.')[2]}"


def login() -> str:
    """The account that hosts log in: who runs them. See `login_name` of local/wave/machine."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "tango"


def _claim(wanted: str | None) -> tuple[ipaddress.IPv4Network, socket.socket]:
    """A network that no other emulation uses: it is held by a port that nobody else can have, and
    that the kernel gives back however this process ends."""
    choice = random.sample(CANDIDATES, len(CANDIDATES))
    for cidr in [ipaddress.IPv4Network(wanted)] if wanted else choice:
        claim = socket.socket()
        try:
            # The address of a network itself, which no instance has.
            claim.bind((translated(str(cidr.network_address)), PORT))
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                raise NoNetwork(f"no port of loopback can be had: {error}") from error
        else:
            return cidr, claim
    raise NoNetwork(f"port {PORT} is taken in {wanted or 'all of 127.128.0.0/9'}")
