"""An emulated Compute Engine in a process of its own, for tests and benchmarks."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulation.running import Running, Unavailable, why_not

from .catalog import PROJECT, PUBLIC, REGIONS, ZONES
from .discovery import ROOT
from .faults import Fault

__all__ = [
    "PROJECT",
    "PUBLIC",
    "REGIONS",
    "ZONES",
    "ComputeEmulation",
    "Fault",
    "Refused",
    "Unavailable",
    "why_not",
]
_SECONDS = 30


class Refused(Exception):
    """The API has answered with an error. `status` is HTTP's, `reason` Google's."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


@dataclass(kw_only=True)
class ComputeEmulation(Running):
    """`endpoint` is where faults strike and calls are counted; `backend_endpoint` goes past it."""

    backend_endpoint: str
    project: str = PROJECT

    @classmethod
    def start(
        cls, folder: Path, *, network: str | None = None, loopback: bool = False
    ) -> ComputeEmulation:
        """Returns when it answers; logs go to `folder`. `loopback`: with hosts as they are for
        users other than root. Raises Unavailable."""
        options = ["--network", network] if network else []
        root = Path(__file__).parents[2]
        return cls.run(folder, "tests.compute", options, [root], loopback=loopback)

    def malformed(self) -> list[str]:
        """Answers of our own that the discovery document does not allow. `stop` fails with one."""
        found: list[str] = self.control("GET", "malformed")
        return found

    def forget_malformed(self) -> None:
        self.control("DELETE", "malformed")

    def methods(self) -> list[str]:
        """The methods that are emulated: `instances.insert`, ..."""
        found: list[str] = self.control("GET", "methods")
        return found

    def ask(self, verb: str, path: str, content: object = None, *, quiet: bool = True) -> Any:
        """Call the API: `ask("GET", "zones/us-central1-a/instances")`, below our project; a path
        that begins with `projects/` or `locations/` is whole. `quiet`: past faults and counting.

        Raises Refused with the error that is answered.
        """
        if not path.startswith(("projects/", "locations/")):
            path = f"projects/{self.project}/{path}".rstrip("/")
        endpoint = self.backend_endpoint if quiet else self.endpoint
        data = None if content is None else json.dumps(content).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{endpoint}{ROOT}{path}", data, headers, method=verb)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            found = json.loads(error.read())["error"]
            raise Refused(error.code, found["errors"][0]["reason"], found["message"]) from None

    def done(self, operation: Any) -> Any:
        """The operation when it is done. Raises Refused with its error."""
        path = operation["selfLink"].partition(ROOT)[2]
        deadline = time.monotonic() + _SECONDS
        while operation["status"] != "DONE":
            assert time.monotonic() < deadline, operation
            operation = self.ask("POST", f"{path}/wait")
        if "error" in operation:
            first = operation["error"]["errors"][0]
            raise Refused(operation["httpErrorStatusCode"], first["code"], first["message"])
        return operation

    def instances(self, filter_: str = "") -> list[Any]:
        """All that there are, as the API shows them, in all zones and whatever their status."""
        found: list[Any] = []
        for zone in ZONES:
            query = urllib.parse.urlencode({"filter": filter_} if filter_ else {})
            found += self.ask("GET", f"zones/{zone}/instances?{query}").get("items", ())
        return found

    def delete(self, instance_id: str) -> None:
        """As if by somebody else; returns when `<zone>/<name>` is gone."""
        zone, _, name = instance_id.partition("/")
        self.done(self.ask("DELETE", f"zones/{zone}/instances/{name}"))

    def register_image(
        self, name: str, *, family: str = "", architecture: str = "x86_64", **more: object
    ) -> str:
        """An image of this project with that name; its path, `projects/.../global/images/...`."""
        body = {
            "name": name,
            "architecture": "ARM64" if architecture in {"arm64", "aarch64"} else "X86_64",
            "rawDisk": {"source": "https://storage.googleapis.com/images/disk.tar.gz"},
            **({"family": family} if family else {}),
            **more,
        }
        self.done(self.ask("POST", "global/images", body))
        return f"projects/{self.project}/global/images/{name}"

    def make_network(self, name: str, *regions: str) -> dict[str, str]:
        """An existing network with a subnetwork in each region; their paths by region."""
        self.done(
            self.ask("POST", "global/networks", {"name": name, "autoCreateSubnetworks": False})
        )
        found = {}
        for region in regions or REGIONS[:1]:
            body = {
                "name": name,
                "network": f"projects/{self.project}/global/networks/{name}",
                "ipCidrRange": self.subnetwork(),
            }
            self.done(self.ask("POST", f"regions/{region}/subnetworks", body))
            found[region] = f"projects/{self.project}/regions/{region}/subnetworks/{name}"
        return found

    def stop(self) -> None:
        """End it, and make sure that nothing of it is left, and that all it said was in order."""
        malformed = self.malformed()
        super().stop()
        assert not malformed, malformed
