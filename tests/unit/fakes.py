"""A cloud in memory, for unit tests of the orchestration: no sockets, no Terraform, no waiting.

It keeps the promises of the protocols, which the contract suites check on the real ones; what it
adds is that everything can be made to go wrong on order.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tango_cloud.core.errors import (
    MachineUnreachable,
    ProviderUnavailable,
    ProvisioningError,
    TangoCloudError,
    TerraformError,
)
from tango_cloud.core.model import (
    Endpoint,
    Instance,
    InstanceStatus,
    MachineRequest,
    Market,
    Offer,
    Rate,
    Shape,
)
from tango_cloud.orchestration.stacks import WaveReport
from tango_cloud.providers.protocol import Bootstrap, Check
from tango_cloud.transports.protocol import (
    NO_ARTIFACTS,
    Artifact,
    Artifacts,
    ArtifactStatus,
    InputFile,
    MachineReport,
    OnOutput,
    RunLimits,
    RunOutcome,
)

OUTCOME = RunOutcome(0, False, False, 0.1, 0.1, 1024, 3, "limits")


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class FakeCloud:
    """A provider whose instances live in a dict. Also the stacks that create in it."""

    machine_resource = "fake_instance.machine"
    poll_interval = 0.0
    compress = False
    sudo = False

    def __init__(self, name: str = "fake", price: float | None = None) -> None:
        self.name = name
        self.price = price
        self.alive: dict[str, Instance] = {}
        self.applies: list[list[str]] = []
        self.forgotten: set[str] = set()
        self.discarded: list[str] = []
        self.states: dict[str, float] = {}
        self.terminated: list[str] = []
        self.unlocked: list[str] = []
        self.interrupted: list[str] = []
        self.listings = 0
        self.own_host_keys = False
        self.creation_rate: Rate | None = None
        self.removal_rate: Rate | None = None
        self.host_keys: dict[str, str] = {}
        self.unavailable = False
        self.offers_count = 2
        self.markets = [Market.ON_DEMAND]
        self.refuse: Callable[[MachineRequest], TangoCloudError | None] = lambda _: None
        self.apply_failure: TangoCloudError | None = None
        self.immortal: set[str] = set()
        self.slow: set[str] = set()
        self.hidden: set[str] = set()
        self.before_apply: Callable[[], object] = lambda: None
        self.after_apply: Callable[[], object] = lambda: None
        self.between_looks: Callable[[], object] = lambda: None
        self.lock = threading.Lock()

    # Provider

    def images(self) -> Sequence[str]:
        return ["fake.img"]

    def host_key(self, instance_id: str) -> str:
        return self.host_keys.get(instance_id, "")

    def offers(self, shape: Shape) -> Sequence[Offer]:
        return [
            Offer(self.name, "here", f"zone-{n}", "small", market, self.price)
            for market in self.markets
            for n in range(self.offers_count)
        ]

    def envelope_variables(self, deployment: str) -> Mapping[str, object]:
        return {}

    def user_data(self, bootstrap: Bootstrap) -> str:
        return bootstrap.host_public_key

    def wave_machines(self, requests: Iterable[MachineRequest]) -> Mapping[str, object]:
        return {request.uid: {} for request in requests}

    def environment(self) -> Mapping[str, str]:
        return {}

    def instances(self, deployment: str) -> Sequence[Instance]:
        self.listings += 1
        if self.unavailable:
            raise ProviderUnavailable("the fake cloud is away")
        with self.lock:
            ours = [i for i in self.alive.values() if i.key.deployment == deployment]
            return [instance for instance in ours if instance.instance_id not in self.hidden]

    def terminate(self, instance_ids: Iterable[str]) -> None:
        for instance_id in instance_ids:
            self.terminated.append(instance_id)
            if instance_id in self.slow and instance_id in self.alive:
                instance = self.alive[instance_id]
                self.alive[instance_id] = replace(instance, status=InstanceStatus.STOPPING)
            elif instance_id not in self.immortal:
                self.alive.pop(instance_id, None)

    def warnings(self) -> Sequence[Check]:
        return ()

    def classify(self, error: TerraformError) -> TangoCloudError:
        return ProvisioningError(str(error))

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
        on_start(1)
        self.states[wave] = 0.0
        self.before_apply()
        self.applies.append([request.uid for request in requests])
        if self.apply_failure is not None:
            raise self.apply_failure
        errors = {}
        for request in requests:
            error = self.refuse(request)
            if error is not None:
                errors[request.uid] = error
                continue
            self.give(request, wave)
            on_created(request.uid)
        self.after_apply()
        made = frozenset(r.uid for r in requests) - errors.keys()
        return WaveReport(made, errors, instance_ids={uid: f"i-{uid}" for uid in made})

    def forget(self, provider: str, wave: str, uids: set[str]) -> None:
        self.forgotten |= uids

    def interrupt(self, wave: str) -> None:
        self.interrupted.append(wave)

    def discard(self, provider: str, wave: str) -> None:
        self.discarded.append(wave)

    def waves(self) -> Mapping[str, float]:
        return {w: age for w, age in self.states.items() if w not in self.discarded}

    def break_lock(self, provider: str, wave: str) -> None:
        self.unlocked.append(wave)

    def halt(self) -> None:
        """Nothing to interrupt."""

    def resume(self) -> None:
        """Nothing was."""

    def instance_id(self, stored_id: str, /) -> str:
        return stored_id

    # On order

    def give(self, request: MachineRequest, wave: str = "w") -> None:
        with self.lock:
            self.alive[f"i-{request.uid}"] = instance_of(request, wave)


def instance_of(request: MachineRequest, wave: str) -> Instance:
    return Instance(
        instance_id=f"i-{request.uid}",
        key=request.key,
        uid=request.uid,
        wave=wave,
        image=request.shape.image,
        status=InstanceStatus.RUNNING,
        address="192.0.2.1",
        port=22,
        username="tango",
        zone=request.offer.zone,
        instance_type=request.offer.instance_type,
        created=dt.datetime.now(dt.UTC),
        expires=request.expires,
    )


class FakeStacks:
    """The stacks of several clouds."""

    def __init__(self, *clouds: FakeCloud) -> None:
        self._clouds = {cloud.name: cloud for cloud in clouds}

    def __getattr__(self, method: str) -> Callable[..., Any]:
        """What concerns one provider is its cloud's."""
        return lambda provider, *more, **named: getattr(self._clouds[provider], method)(
            provider, *more, **named
        )

    def interrupt(self, wave: str) -> None:
        for cloud in self._clouds.values():
            cloud.interrupt(wave)

    def waves(self) -> Mapping[str, float]:
        return {w: age for cloud in self._clouds.values() for w, age in cloud.waves().items()}

    def halt(self) -> None:
        for cloud in self._clouds.values():
            cloud.halt()

    def resume(self) -> None:
        for cloud in self._clouds.values():
            cloud.resume()


class FakeSession:
    def __init__(self, transport: FakeTransport, endpoint: Endpoint) -> None:
        self.transport = transport
        self.endpoint = endpoint
        self.closed = False
        self.steps: list[str] = []

    def _check(self) -> None:
        if self.closed or not self.transport.reachable(self.endpoint):
            raise MachineUnreachable("the fake machine does not answer")

    def report(self) -> MachineReport:
        return MachineReport("limits", False, False, "3", ())

    def put(self, files: Sequence[InputFile]) -> None:
        self._check()
        self.steps.append("put")

    def run(
        self,
        limits: RunLimits,
        on_output: OnOutput | None = None,
        artifacts: Artifacts = NO_ARTIFACTS,
    ) -> RunOutcome:
        self._check()
        self.steps.append("run")
        outcome = self.transport.on_run(self, limits)
        kept = (Artifact(path, ArtifactStatus.FETCHED) for path in artifacts.paths)
        return replace(outcome, artifacts=tuple(kept))

    def cancel(self) -> None:
        self.closed = True

    def get(self, local: Path) -> None:
        self._check()
        self.steps.append("get")
        local.write_bytes(self.transport.output)

    def collect(self, local: Path, limit_bytes: int) -> None:
        self._check()
        self.steps.append("collect")
        local.mkdir()

    def peek(self, limit: int) -> bytes:
        self._check()
        return b"out"[:limit]

    def stage_host_key(self) -> str:
        self._check()
        return self.transport.fresh_keys.setdefault(self.endpoint.address, "ssh-ed25519 fresh")

    def activate_host_key(self) -> None:
        self._check()
        self.transport.activated += 1

    @property
    def open(self) -> bool:
        return self.alive()

    def alive(self) -> bool:
        return not self.closed and self.transport.reachable(self.endpoint)

    def close(self) -> None:
        self.closed = True


class FakeTransport:
    def __init__(self) -> None:
        self.sessions: list[FakeSession] = []
        self.fresh_keys: dict[str, str] = {}
        self.activated = 0
        self.listening = True
        self.reachable: Callable[[Endpoint], bool] = lambda _: True
        self.refuse: TangoCloudError | None = None
        self.output = b"out"
        self.on_run: Callable[[FakeSession, RunLimits], RunOutcome] = lambda *_: OUTCOME

    def listens(self, address: str, port: int, timeout: float) -> bool:
        return self.listening

    def connect(self, endpoint: Endpoint, timeout: float) -> FakeSession:
        if self.refuse is not None:
            raise self.refuse
        if not self.reachable(endpoint):
            raise MachineUnreachable("the fake machine does not answer")
        session = FakeSession(self, endpoint)
        self.sessions.append(session)
        return session
