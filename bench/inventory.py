"""What looking at many machines costs: calls to the cloud, and our own work."""

from __future__ import annotations

import datetime as dt
import json
import math
import resource
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, parse_qsl, urlsplit
from xml.sax.saxutils import escape

from sqlalchemy import create_engine, insert

from bench import report
from bench.deployment import PREFIX, in_force
from bench.series import Series
from tango_cloud.core import tags
from tango_cloud.core.ledger.schema import machines, waves
from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import WaveState
from tango_cloud.core.settings import Settings
from tango_cloud.vmms.translation import listed
from tango_cloud.wiring import build_deployment, ledger_url

COUNTS = (10, 1_000, 10_000)
ROUNDS = 5
PAGES: Mapping[str, int] = {"aws": 1000, "gcp": 500}
"""The most instances that DescribeInstances and instances.aggregatedList give at once."""
_WAVE = "b" * 12


@dataclass
class Inventory:
    """A server that answers what is asked of an inventory as the cloud's API does, and counts how
    often."""

    provider: str
    count: int
    calls: int = 0
    url: str = ""
    born: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))

    def labels(self, number: int) -> Mapping[str, str]:
        return {
            tags.DEPLOYMENT: PREFIX,
            tags.ID: str(number),
            tags.NAME: "bench",
            tags.UID: f"{number:012x}",
            tags.WAVE: _WAVE,
            tags.IMAGE: "bench",
            tags.EXPIRES: str(int(self.born.timestamp()) + 86400),
        }

    def page(self, begin: int) -> tuple[range, str]:
        """The numbers on the page that begins there, and the token of the next page."""
        end = min(begin + PAGES[self.provider], self.count)
        return range(begin, end), str(end) if end < self.count else ""


def _ec2_answer(inventory: Inventory, given: Mapping[str, str]) -> str:
    nothing = {"DescribeVolumes": "volumeSet", "DescribeNetworkInterfaces": "networkInterfaceSet"}
    if (action := given["Action"]) in nothing:
        # Detached ones are asked for: there are none.
        return (
            f'<{action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
            f"<{nothing[action]}/></{action}Response>"
        )
    numbers, token = inventory.page(int(given.get("NextToken") or 0))
    items = "".join(_ec2_item(inventory, number) for number in numbers)
    following = f"<nextToken>{token}</nextToken>" if token else ""
    return (
        '<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        f"<reservationSet><item><instancesSet>{items}</instancesSet></item></reservationSet>"
        f"{following}</DescribeInstancesResponse>"
    )


def _ec2_item(inventory: Inventory, number: int) -> str:
    labels = "".join(
        f"<item><key>{key}</key><value>{escape(text)}</value></item>"
        for key, text in inventory.labels(number).items()
    )
    return (
        f"<item><instanceId>i-{number:017x}</instanceId><instanceState><code>16</code>"
        f"<name>running</name></instanceState><privateIpAddress>{_address(number)}"
        f"</privateIpAddress><placement><availabilityZone>us-east-1a</availabilityZone></placement>"
        f"<instanceType>t3.small</instanceType><launchTime>{inventory.born.isoformat()}"
        f"</launchTime><tagSet>{labels}</tagSet></item>"
    )


def _google_answer(inventory: Inventory, kind: str, given: Mapping[str, str]) -> str:
    """`kind` is `instances` or `disks`, of which each machine has one."""
    numbers, token = inventory.page(int(given.get("pageToken") or 0))
    zone = "zones/europe-west1-b"
    found = [
        {
            "name": f"bench-{number}",
            "zone": f"{inventory.url}/compute/v1/projects/bench-project/{zone}",
            "status": "RUNNING",
            "machineType": f"{zone}/machineTypes/e2-small",
            "creationTimestamp": inventory.born.isoformat(),
            "labels": inventory.labels(number),
            "networkInterfaces": [{"networkIP": _address(number)}],
        }
        if kind == "instances"
        else {
            "name": f"bench-{number}",
            "zone": f"{inventory.url}/compute/v1/projects/bench-project/{zone}",
            "status": "READY",
            "creationTimestamp": inventory.born.isoformat(),
            "labels": inventory.labels(number),
            "users": [f"{zone}/instances/bench-{number}"],
        }
        for number in numbers
    ]
    answer: dict[str, object] = {"items": {zone: {kind: found}}}
    return json.dumps(answer | ({"nextPageToken": token} if token else {}))


def _address(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


@contextmanager
def _served(provider: str, count: int) -> Iterator[Inventory]:
    inventory = Inventory(provider, count)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer(_ec2_answer(inventory, dict(parse_qsl(body))), "text/xml")

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            given = {name: texts[0] for name, texts in parse_qs(url.query).items()}
            answer = _google_answer(inventory, url.path.rpartition("/")[2], given)
            self._answer(answer, "application/json")

        def _answer(self, text: str, kind: str) -> None:
            inventory.calls += 1
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    inventory.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield inventory
    finally:
        server.shutdown()
        server.server_close()


def _environment(provider: str, url: str) -> Mapping[str, str]:
    ours = {"TANGO_CLOUD_PROVIDER": provider}
    if provider == "gcp":
        return ours | {
            "GOOGLE_COMPUTE_CUSTOM_ENDPOINT": f"{url}/compute/v1/",
            "TANGO_CLOUD_GCP__PROJECT": "bench-project",
            "TANGO_CLOUD_GCP__ZONES": '["europe-west1-b"]',
        }
    return ours | {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }


def main() -> None:
    report.say("## Looking at many machines")
    report.say(
        "Calls to the cloud and milliseconds of processor time of one look, medians of "
        f"{ROUNDS}. The inventory is a server on loopback that answers DescribeInstances and "
        "instances.aggregatedList, in their pages, for so many machines, all of them on the books "
        "and in one wave. `least` is how many pages the API needs for them. The answering server "
        "is in the same process: `listing` is the two of them, without us. `MiB`: the most memory "
        "that one look holds at a time, pages of the answering server included."
    )
    rows = [_row(provider, count) for provider in PAGES for count in COUNTS]
    report.table(
        [
            "cloud",
            "machines",
            "least",
            "getVMs",
            "vms",
            "reconcile",
            "listing ms",
            "getVMs ms",
            "vms ms",
            "reconcile ms",
            "reconcile, µs a machine",
            "reconcile MiB",
        ],
        rows,
    )


def _row(provider: str, count: int) -> Sequence[str]:
    report.progress(f"{count:,} machines, {provider}")
    with (
        _served(provider, count) as inventory,
        in_force(_environment(provider, inventory.url)) as settings,
    ):
        deployment = build_deployment(settings)
        _book(settings, inventory)
        fleet = deployment.fleet
        site = next(iter(fleet._sites.values()))
        looks: dict[str, Callable[[], object]] = {
            "listing": lambda: site.provider.instances(PREFIX),
            "getVMs": lambda: [listed(entry) for entry in fleet.entries()],
            "vms": fleet.entries,
            "reconcile": deployment.reconciler.run,
        }
        series, calls = Series(), {}
        for name, look in looks.items():
            look()  # connections, statements
            for _ in range(ROUNDS):
                before, began = inventory.calls, _processor()
                look()
                series.add(name, _processor() - began)
                calls[name] = inventory.calls - before
        memory = _memory(deployment.reconciler.run)
        deployment.close()
    least = max(1, math.ceil(count / PAGES[provider]))
    return [
        provider,
        f"{count:,}",
        str(least),
        *(str(calls[name]) for name in ("getVMs", "vms", "reconcile")),
        *(report.milliseconds(series.median(name)) for name in looks),
        f"{series.median('reconcile') / count * 1e6:.0f}",
        f"{memory / 2**20:.1f}",
    ]


def _memory(look: Callable[[], object]) -> int:
    """In bytes."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    look()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most - before


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _book(settings: Settings, inventory: Inventory) -> None:
    """The machines as the ledger would have them, all ready."""
    now = time.time()
    engine = create_engine(ledger_url(settings))
    folder = settings.state_dir / PREFIX / "waves" / _WAVE
    folder.mkdir(parents=True)
    with engine.begin() as connection:
        connection.execute(
            insert(waves).values(
                wave=_WAVE,
                deployment=PREFIX,
                provider=inventory.provider,
                state=WaveState.APPLIED,
                owner="",
                created_at=now,
            )
        )
        connection.execute(
            insert(machines),
            [
                {
                    "uid": f"{number:012x}",
                    "deployment": PREFIX,
                    "id": number,
                    "name": "bench",
                    "state": State.READY,
                    "provider": inventory.provider,
                    "image": "bench",
                    "wave": _WAVE,
                    "created_at": now,
                    "changed_at": now,
                    "expires_at": now + 86400,
                }
                for number in range(inventory.count)
            ],
        )
    engine.dispose()


if __name__ == "__main__":
    report.say(report.host())
    main()
