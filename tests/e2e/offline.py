"""In a network that leads nowhere: a job on an emulated cloud, and what was sent for it.

    python -m tests.e2e.offline aws|gcp FOLDER

Run in namespaces of its own (network, mounts, processes). Prints one line of JSON: what the
commands said, how many packets had left by then, and how many when some were sent on purpose.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emulation.client import Emulation

from .. import gcp
from ..aws import IMAGE, make_aws_deployment
from ..compute.client import ComputeEmulation
from ..emulated import EmulatedDeployment
from ..google_plugin import install

AWAY = "away"
"""Where everything goes that is neither for loopback nor for the emulation's network."""
NAMES = "203.0.113.53"
SOMEBODY = "198.51.100.1"
"""Both reserved for documentation."""
_ALL = 3
"""ETH_P_ALL: packets of every protocol."""


def main(cloud: str, folder: Path) -> None:
    lead_nowhere(folder)
    seen = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL))
    seen.bind((AWAY, _ALL))
    seen.setblocking(False)
    place = folder / "deployment"
    place.mkdir()
    told = {"aws": on_ec2, "gcp": on_compute}[cloud](folder, place)
    told |= {"sent": sent(), "packets": list(packets(seen))}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"x", (SOMEBODY, 9))
    told["sent_by_us"] = sent() - told["sent"]
    try:
        socket.getaddrinfo("tango-cloud.example", 80)
        told["looked_up"] = 0
    except OSError:
        told["looked_up"] = sent() - told["sent"] - told["sent_by_us"]
    sys.stdout.write(json.dumps(told))


def on_ec2(folder: Path, place: Path) -> dict[str, Any]:
    emulation = Emulation.start(folder / "emulation")
    emulation.register_image(IMAGE)
    emulation.client("s3").create_bucket(Bucket="states")
    remote = {"TANGO_CLOUD_TERRAFORM__REMOTE_STATE": "s3://states/team"}
    return what_is_done(make_aws_deployment(place, emulation, place / "state", "offline", **remote))


def on_compute(folder: Path, place: Path) -> dict[str, Any]:
    emulation = ComputeEmulation.start(folder / "emulation")
    emulation.register_image(gcp.IMAGE)
    plugin = install(folder / "plugin")
    return what_is_done(
        gcp.make_gcp_deployment(place, emulation, place / "state", "offline", **plugin)
    )


def what_is_done(deployment: EmulatedDeployment) -> dict[str, Any]:
    """A job, from nothing to nothing."""
    commands = [
        deployment.run("run", deployment.job("job", "all:\n\t@echo ran\n"), "--json"),
        deployment.run("vms"),
        deployment.run("destroy", "--all", "--envelope"),
    ]
    deployment.assert_nothing_left()
    calls = deployment.emulation.calls()
    deployment.emulation.stop()
    return {
        "calls": calls,
        "commands": [[done.returncode, done.stdout, done.stderr] for done in commands],
    }


def lead_nowhere(folder: Path) -> None:
    resolver = folder / "resolv.conf"
    resolver.write_text(f"nameserver {NAMES}\noptions timeout:1 attempts:1\n")
    records = Path("/run/tango-cloud-emulation")
    records.mkdir(mode=0o700, exist_ok=True)
    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    for command in (
        # This network's interfaces; and no records of networks that are not in it.
        "mount -t sysfs sysfs /sys",
        f"mount -t tmpfs tmpfs {records}",
        f"mount --bind {resolver} /etc/resolv.conf",
        "ip link set lo up",
        f"ip link add {AWAY} type veth peer name nowhere",
        f"ip addr add 203.0.113.2/24 dev {AWAY}",
        f"ip link set {AWAY} up arp off",
        "ip link set nowhere up",
        f"ip route add default via 203.0.113.1 dev {AWAY}",
    ):
        subprocess.run(command.split(), check=True)


def packets(seen: socket.socket) -> Iterator[str]:
    """The beginning of each, in hexadecimal digits, for who has to find out what it was."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield seen.recv(64).hex(" ", 4)


def sent() -> int:
    return int(Path("/sys/class/net", AWAY, "statistics/tx_packets").read_text())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
