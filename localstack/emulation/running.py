"""An emulated cloud in a process of its own, as tests and benchmarks hold it."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import psutil

from emulation.hosting import console_of
from emulation.network import record_of

_STOP_SECONDS = 30
_PROGRAMS = ("ip", "sshd", "sudo")


class Unavailable(Exception):
    """No emulation can run here. The message says why."""


def why_not(*, loopback: bool = False) -> str:
    """Why hosts cannot be made here, in words; empty when nothing is known against it."""
    if sys.platform != "linux":
        return "an emulation needs Linux"
    if loopback or os.geteuid() != 0:
        return ""  # what the local provider needs came with us
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    return f"an emulation needs {', '.join(missing)}" if missing else ""


class AnyFault(Protocol):
    def as_json(self) -> dict[str, Any]: ...


@dataclass(kw_only=True)
class Running:
    """`endpoint` is what clients talk to, and `environment` what sends them there; `network`
    (CIDR) holds the addresses at which instances are real hosts, on `interface`. Without one these
    addresses are translated: hosts are programs on loopback then."""

    folder: Path
    endpoint: str
    network: str
    interface: str
    environment: dict[str, str]
    _process: subprocess.Popen[str] = field(repr=False)
    _subnetworks: int = 0

    @classmethod
    def run(
        cls,
        folder: Path,
        module: str,
        options: Sequence[str],
        path: Iterable[Path] = (),
        *,
        loopback: bool = False,
    ) -> Self:
        """`python -m module --json ...`, its modules found in `path` too. It must describe itself
        by one line, our fields in JSON; returns then. Logs go to `folder`. Raises Unavailable."""
        if reason := why_not(loopback=loopback):
            raise Unavailable(reason)
        folder.mkdir(parents=True, exist_ok=True)
        here = Path(__file__).parents[1]
        argv = [sys.executable, "-m", module, "--json", "--folder", str(folder)]
        argv += ["--loopback"] if loopback else []
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [*argv, *options],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (here, *path)))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # A terminal's interrupt is for the tests, which need us to tidy up.
                start_new_session=True,
            )
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            process.wait(_STOP_SECONDS)
            raise Unavailable((folder / "log").read_text().strip()[-2000:])
        return cls(folder=folder, _process=process, **json.loads(line))

    @property
    def pid(self) -> int:
        """Of the process whose descendants all of it are."""
        return self._process.pid

    def subnetwork(self) -> str:
        """A /20 of the network that nobody was given yet: VPCs may not share addresses here."""
        # The first is the one in the environment.
        self._subnetworks += 1
        cidrs = list(ipaddress.IPv4Network(self.network).subnets(new_prefix=20))
        return str(cidrs[self._subnetworks])

    def place(self, address: str) -> tuple[str, int, str]:
        """Address, port and login of the host with the address of an instance.

        Raises LookupError when there is no such instance.
        """
        if self.interface:
            return address, 22, "tango"
        where = json.loads((self.folder / "reach.json").read_text())[address]
        return where["address"], where["port"], where["username"]

    def order(self, fault: AnyFault) -> None:
        self.control("POST", "faults", fault.as_json())

    def clear(self) -> None:
        """Forget all faults. Hosts that already suffer from one go on to."""
        self.control("DELETE", "faults")

    def calls(self) -> Counter[str]:
        """How many calls of each action (`ec2:RunInstances`) came since the last reset."""
        return Counter(self.control("GET", "calls"))

    def reset_calls(self) -> None:
        self.control("DELETE", "calls")

    def hosts(self) -> list[dict[str, str]]:
        """Each with instance_id, address, zone, instance_type, market, image, and status:
        `booting`, `ready`, `off`, or `failed: ...`."""
        found: list[dict[str, str]] = self.control("GET", "hosts")
        return found

    def kill_host(self, instance_id: str, *, terminate: bool = False) -> None:
        """The host dies at once; the instance goes on to run, or is terminated."""
        self.control("POST", f"hosts/{instance_id}/kill", {"terminate": terminate})

    def interrupt(self, instance_id: str, seconds: float) -> None:
        """A spot interruption: notice on the metadata service now, the end in `seconds`."""
        self.control("POST", f"hosts/{instance_id}/interrupt", {"seconds": seconds})

    def console(self, instance_id: str) -> str:
        path = console_of(self.folder / "consoles", instance_id)
        return path.read_text(errors="replace") if path.exists() else ""

    def processes(self) -> list[psutil.Process]:
        """Of the emulation and of all its hosts."""
        with contextlib.suppress(psutil.NoSuchProcess):
            own = psutil.Process(self._process.pid)
            return [own, *own.children(recursive=True)]
        return []

    def stop(self) -> None:
        """End it, and make sure that nothing of it is left."""
        processes = self.processes()
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            status = self._process.wait(_STOP_SECONDS)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process.stdout.close()
        assert status == 0, (self.folder / "log").read_text()[-2000:]
        _, alive = psutil.wait_procs(processes, timeout=5)
        assert not alive, alive
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        assert not (self.folder / "root").exists()
        if self.interface:
            self._assert_no_network()

    def _assert_no_network(self) -> None:
        shown = subprocess.run(
            ["ip", "route", "show", "table", "all"],
            capture_output=True,
            text=True,
            check=True,
        )
        linked = Path("/sys/class/net", self.interface).exists()
        # With a record somebody else has the network by now.
        if not record_of(ipaddress.IPv4Network(self.network)).exists():
            assert self.network.rpartition("0.0/")[0] not in shown.stdout
            assert not linked
        assert str(self.folder) not in Path("/proc/mounts").read_text()

    def control(self, method: str, path: str, content: object = None) -> Any:
        """Ask something of the emulation itself. Raises ValueError with what it does not take."""
        data = None if content is None else json.dumps(content).encode()
        url = f"{self.endpoint}/_emulation/{path}"
        request = urllib.request.Request(url, data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode()) from error
