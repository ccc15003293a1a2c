"""A cloud that is a folder: processes share it, it outlives them, and it lies on order.

It stands in for Terraform and a cloud where thousands of machines are wanted: the ledger, the
committer, the waves and the VMMS on top of it are the real ones. What applies a wave is a process
of its own, as Terraform is: it goes on when whoever started it is dead.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tango_cloud.core.errors import (
    CapacityError,
    ProviderUnavailable,
    TangoCloudError,
    TerraformError,
)
from tango_cloud.core.model import Endpoint, Instance, InstanceStatus, MachineRequest
from tango_cloud.orchestration.stacks import WaveReport

from .unit.fakes import FakeCloud, instance_of

_MAKE = 'sleep "$1"; for machine in "$2"/*; do mv "$machine" "$3" || exit; done'


@dataclass(frozen=True, slots=True)
class Lies:
    """What the cloud gets wrong at present.

    `lag`: listings show what was so as many seconds ago. `short`: they lack every second instance,
    and do not say so. `away`: nothing can be asked or made. `undying`: what is terminated stays,
    shutting down. `lost`: an apply makes all, and reports a failure. `full`: there is no capacity.
    """

    lag: float = 0.0
    short: bool = False
    away: bool = False
    undying: bool = False
    lost: bool = False
    full: bool = False


class SharedCloud(FakeCloud):
    """Folders in its folder: `instances` and `gone`, a file for each machine that runs and ran;
    `stopping`, those that shut down; `waves`, Terraform's states, each with what it is yet to make.
    """

    def __init__(self, folder: Path, apply_seconds: float, poll_interval: float = 0.2) -> None:
        super().__init__()
        self.poll_interval = poll_interval
        self.ahead = 0.0
        """How many seconds older states show than they are."""
        self._apply_seconds = apply_seconds
        self._folder = folder
        self._instances, self._gone, self._stopping, self._waves = (
            folder / name for name in ("instances", "gone", "stopping", "waves")
        )
        for place in (self._instances, self._gone, self._stopping, self._waves):
            place.mkdir(parents=True, exist_ok=True)

    # Provider

    def instances(self, deployment: str) -> Sequence[Instance]:
        lies = self._asked()
        moment = time.time() - lies.lag
        shown = [*self._running(moment), *self._ran(moment)]
        shown = [instance for instance in shown if instance.key.deployment == deployment]
        return shown[1::2] if lies.short else shown

    def terminate(self, instance_ids: Iterable[str]) -> None:
        lies = self._asked()
        for instance_id in instance_ids:
            if lies.undying and (self._instances / instance_id).exists():
                (self._stopping / instance_id).touch()
            else:
                self.end(instance_id)

    # Stacks

    def apply(
        self,
        provider: str,
        wave: str,
        requests: Sequence[MachineRequest],
        *,
        on_created: Callable[[str], None],
        on_start: Callable[[int], None],
    ) -> WaveReport:
        lies = self.lies
        planned = self._waves / wave
        planned.mkdir()
        refused: dict[str, TangoCloudError] = {}
        for request in requests:
            if lies.full:
                refused[request.uid] = CapacityError("the folder is full")
            else:
                machine = replace(instance_of(request, wave), address=request.uid)
                (planned / machine.instance_id).write_bytes(pickle.dumps(machine))
        script = "exit 1" if lies.away or lies.full else _MAKE
        process = subprocess.Popen(
            ["sh", "-c", script, "terraform", str(self._apply_seconds), planned, self._instances],
            stderr=subprocess.DEVNULL,
        )
        on_start(process.pid)
        failure = None
        if process.wait() or lies.lost:
            failure = TerraformError(["apply"], 1, "it went wrong", [])
        made = {r.uid for r in requests if not (planned / f"i-{r.uid}").exists()} - refused.keys()
        created = frozenset() if lies.lost else frozenset(made)
        for uid in created:
            on_created(uid)
        return WaveReport(created, refused, failure)

    def waves(self) -> Mapping[str, float]:
        found = {}
        for path in self._waves.iterdir():
            with suppress(FileNotFoundError):  # just discarded
                found[path.name] = time.time() + self.ahead - path.stat().st_mtime
        return found

    def forget(self, provider: str, wave: str, uids: set[str]) -> None:
        for uid in uids:
            (self._waves / wave / f"i-{uid}").unlink(missing_ok=True)

    def discard(self, provider: str, wave: str) -> None:
        planned = self._waves / wave
        if planned.exists():
            for machine in planned.iterdir():
                machine.unlink()
            planned.rmdir()

    # From outside

    @property
    def lies(self) -> Lies:
        try:
            return Lies(**json.loads((self._folder / "lies.json").read_text()))
        except FileNotFoundError:
            return Lies()

    def lie(self, lies: Lies) -> None:
        scratch = self._folder / "lies.new"
        scratch.write_text(json.dumps(asdict(lies)))
        scratch.rename(self._folder / "lies.json")

    def running(self) -> Mapping[str, str]:
        """The uid of each instance that runs, by its id: the truth."""
        return {instance.instance_id: instance.uid for instance in self._running(time.time())}

    def end(self, instance_id: str) -> None:
        """At once, as a spot instance."""
        try:
            (self._instances / instance_id).rename(self._gone / instance_id)
        except FileNotFoundError:
            return
        (self._stopping / instance_id).unlink(missing_ok=True)

    def reachable(self, endpoint: Endpoint) -> bool:
        return (self._instances / f"i-{endpoint.address}").exists()

    def number(self, endpoint: Endpoint) -> int:
        """The id of the machine there, as Tango knows it."""
        machine: Instance = pickle.loads((self._instances / f"i-{endpoint.address}").read_bytes())
        return machine.key.id

    def _asked(self) -> Lies:
        lies = self.lies
        if lies.away:
            raise ProviderUnavailable("the folder is away")
        if not lies.undying:
            for instance_id in self._stopping.iterdir():
                self.end(instance_id.name)
        return lies

    def _running(self, moment: float) -> Iterable[Instance]:
        for path in sorted(self._instances.iterdir()):
            try:
                # It was moved here when it was made.
                made, machine = path.stat().st_ctime, pickle.loads(path.read_bytes())
            except FileNotFoundError:
                continue
            stopping = (self._stopping / path.name).exists()
            if made <= moment:
                yield replace(machine, status=InstanceStatus.STOPPING) if stopping else machine

    def _ran(self, moment: float) -> Iterable[Instance]:
        for path in sorted(self._gone.iterdir()):
            machine: Instance = pickle.loads(path.read_bytes())
            if machine.created.timestamp() <= moment < path.stat().st_ctime:
                yield machine
