"""Who may reach the machines."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from tango_cloud.core.errors import ConfigurationError, Fault

# Reserved for documentation: nobody is there, and no packet is sent.
_SOMEBODY = ((socket.AF_INET, "198.51.100.1", 32), (socket.AF_INET6, "2001:db8::1", 128))


def ssh_from(setting: str, ranges: Sequence[str]) -> Sequence[str]:
    """The `ranges` that the setting holds; without any, this host's own address.

    Raises ConfigurationError when this host has none to go by.
    """
    own = list(ranges) or _own_address()
    if not own:
        raise ConfigurationError(
            [
                Fault(
                    setting,
                    "this host has no default route to take its address from",
                    "the address ranges that may reach the machines: 192.0.2.7/32",
                )
            ]
        )
    return own


def _own_address() -> list[str]:
    """The source address of the default route. Connecting a datagram socket only looks it up."""
    for family, address, bits in _SOMEBODY:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))
                return [f"{probe.getsockname()[0]}/{bits}"]
        except OSError:
            continue
    return []
