"""The clouds that lives are lived on, each with as many deployments as are wanted."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from emulation.client import Emulation
from emulation.running import Running

from .. import aws, gcp
from ..compute.client import ComputeEmulation
from ..deployment import Deployment, make_deployment
from ..emulated import emulated
from ..google_plugin import install

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Cloud:
    """`make` makes a deployment in a folder, with a prefix; its machines reach this process at
    `address`."""

    name: str
    make: Callable[[Path, str], Deployment]
    address: str = LOOPBACK


@contextmanager
def local(_folder: Path) -> Iterator[Cloud]:
    yield Cloud("local", lambda folder, prefix: make_deployment(folder, TANGO_CLOUD_PREFIX=prefix))


@contextmanager
def amazon(folder: Path) -> Iterator[Cloud]:
    with emulated(lambda: Emulation.start(folder), aws.IMAGE) as emulation:
        network = aws.shared_network(emulation)

        def make(folder: Path, prefix: str) -> Deployment:
            return aws.make_aws_deployment(folder, emulation, folder / "state", prefix, **network)

        yield Cloud("aws", make, _address(emulation))


@contextmanager
def google(folder: Path) -> Iterator[Cloud]:
    plugin = install(folder / "plugin")
    with emulated(lambda: ComputeEmulation.start(folder), gcp.IMAGE) as emulation:
        more = {**plugin, **gcp.shared_network(emulation)}

        def make(folder: Path, prefix: str) -> Deployment:
            return gcp.make_gcp_deployment(folder, emulation, folder / "state", prefix, **more)

        yield Cloud("gcp", make, _address(emulation))


CLOUDS = {"local": local, "aws": amazon, "gcp": google}


def _address(emulation: Running) -> str:
    """This machine's, on the network of its hosts."""
    return str(ipaddress.IPv4Network(emulation.network)[2]) if emulation.interface else LOOPBACK
