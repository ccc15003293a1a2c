"""Models of clouds, which stand in for `Waves`: what a committer calls, in virtual time.

They hold what is published or measured (docs/simulation.md says where each figure is from), and
nothing of how machines are gathered, claimed and handed on: that is the committer's own code.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from bench.simulation.virtual import VirtualThreads
from tango_cloud.core.errors import CapacityError, ProviderUnavailable, TangoCloudError
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import Machine, Offer, Rate, Wave
from tango_cloud.core.sections import WaveSettings
from tango_cloud.orchestration.offers import Choice, judge

ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """What a cloud takes: requests to create, and what they may create together."""

    requests: Rate
    instances: Rate


@dataclass(frozen=True, slots=True)
class Model:
    """A cloud, and the Terraform in front of it. Times in seconds.

    `start` until the first call, give or take `start_spread`; then `parallelism` machines at a
    time, each of which occupies its place for `settle` after its call at the least. A call is tried
    `tries` times while it is refused, with pauses that double from 1 s. A machine answers `boot`
    after its call, give or take `boot_spread`. Spreads are standard deviations. Of the calls for a
    machine's first offer `full` find no capacity.
    """

    name: str
    limits: Limits
    start: float
    start_spread: float
    settle: float
    boot: float
    boot_spread: float
    full: float = 0.02
    parallelism: int = WaveSettings().parallelism
    tries: int = 7


EC2 = Model(
    "EC2",
    Limits(requests=Rate(5, 2.0), instances=Rate(1000, 2.0)),
    start=4.0,
    start_spread=0.3,
    settle=18.0,
    boot=25.8,
    boot_spread=3.0,
)
EC2_RAISED = replace(
    EC2, name="EC2, raised", limits=Limits(requests=Rate(100, 50.0), instances=Rate(5000, 50.0))
)
GCE = Model(
    "Compute Engine",
    Limits(requests=Rate(1500, 25.0), instances=Rate(1_000_000, 1e6)),
    start=4.0,
    start_spread=0.3,
    settle=10.0,
    boot=24.0,
    boot_spread=2.0,
)


class Bucket:
    """The cloud's own count of what it is asked."""

    def __init__(self, rate: Rate, threads: VirtualThreads) -> None:
        self._rate = rate
        self._threads = threads
        self._tokens = float(rate.burst)
        self._filled = threads.now()

    def draw(self) -> bool:
        now = self._threads.now()
        filled = self._tokens + (now - self._filled) * self._rate.per_second
        self._tokens, self._filled = min(self._rate.burst, filled), now
        if self._tokens < 1.0 - 1e-9:
            return False
        self._tokens -= 1.0
        return True


@dataclass
class Account:
    """What happened. `ready` are the moments at which machines answer, `claimed` the uids in the
    order in which waves had them."""

    ready: list[float] = field(default_factory=list)
    claimed: list[str] = field(default_factory=list)
    applies: int = 0
    applying: int = 0
    most_applying: int = 0
    throttled: int = 0
    calls: int = 0
    full: int = 0


class ModelledWaves:
    """What a committer calls of `Waves`. On the books as `Waves` would."""

    def __init__(
        self, ledger: Ledger, model: Model, threads: VirtualThreads, random_: random.Random
    ) -> None:
        self.account = Account()
        self._ledger = ledger
        self._model = model
        self._threads = threads
        self._random = random_
        self._requests = Bucket(model.limits.requests, threads)
        self._instances = Bucket(model.limits.instances, threads)
        self._choices = [
            Choice(Offer(model.name, "here", f"zone-{n}", "small"), n) for n in range(3)
        ]

    def create(self, wave: str, provider: str) -> None:
        account = self.account
        account.applies += 1
        account.applying += 1
        account.most_applying = max(account.most_applying, account.applying)
        self._threads.sleep(self._about(self._model.start, self._model.start_spread))
        waiting = [m for m in self._ledger.machines.of_wave(wave) if m.state is State.CREATING]
        account.claimed += [machine.uid for machine in waiting]
        failed: list[tuple[Machine, TangoCloudError]] = []
        self._side_by_side(waiting, lambda machine: self._make(machine, failed))
        account.applying -= 1
        for machine, error in failed:
            verdict = judge(machine, error, self._choices, ATTEMPTS)
            if verdict.again:
                self._ledger.machines.supersede(
                    machine,
                    reason=verdict.reason,
                    detail=str(error),
                    provider=provider,
                    offer=verdict.place,
                    delay=verdict.pause,
                )
            else:
                self._ledger.machines.move(machine.uid, State.FAILED, verdict.reason, str(error))
        self._ledger.waves.applied(wave)

    def _make(self, machine: Machine, failed: list[tuple[Machine, TangoCloudError]]) -> None:
        try:
            self._call(machine)
        except TangoCloudError as error:
            failed.append((machine, error))
            return
        model = self._model
        boot = self._about(model.boot, model.boot_spread)
        self.account.ready.append(self._threads.now() + boot)
        self._threads.sleep(model.settle)

    def _about(self, mean: float, spread: float) -> float:
        return max(mean / 2, self._random.gauss(mean, spread))

    def _call(self, machine: Machine) -> None:
        """Raises what the plugin would, at its end."""
        for attempt in range(self._model.tries):
            if attempt:
                self._threads.sleep(2 ** (attempt - 1) * self._random.uniform(0.5, 1.0))
            self.account.calls += 1
            if self._requests.draw() and self._instances.draw():
                if machine.offer == 0 and self._random.random() < self._model.full:
                    self.account.full += 1
                    raise CapacityError("the zone is full")
                return
            self.account.throttled += 1
        raise ProviderUnavailable("request limit exceeded")

    def _side_by_side(self, machines: Sequence[Machine], what: Callable[[Machine], None]) -> None:
        waiting = list(reversed(machines))

        def worker() -> None:
            while waiting:
                what(waiting.pop())

        count = min(self._model.parallelism, len(machines))
        for thread in [self._threads.spawn(worker, "create") for _ in range(count)]:
            thread.join()

    # What a committer calls besides; nothing is removed, and nobody dies.

    def remove(self, wave: str, provider: str, machines: Sequence[Machine]) -> set[str]:
        raise NotImplementedError

    def present(self, wave: Wave) -> Collection[str]:
        raise NotImplementedError

    def settle_orphaned(self, wave: Wave, present: Collection[str]) -> Sequence[Machine]:
        raise NotImplementedError

    def terraform_runs(self, _wave: Wave) -> bool:
        return False

    @property
    def providers(self) -> Collection[str]:
        return [self._model.name]

    def halt(self) -> None:
        """Nobody interrupts."""

    def resume(self) -> None:
        """Nobody interrupts."""


class OneCallWaves(ModelledWaves):
    """As if all machines of a wave were asked for by one call, and told who they are afterwards,
    one call each. What we do not do; see decision 8.
    """

    def __init__(
        self, ledger: Ledger, model: Model, threads: VirtualThreads, random_: random.Random
    ) -> None:
        super().__init__(ledger, replace(model, parallelism=sys.maxsize), threads, random_)
        self._tags = Bucket(Rate(100, 10.0), threads)

    def _call(self, _machine: Machine) -> None:
        while not self._instances.draw():
            self._threads.sleep(0.5)
        while not self._tags.draw():
            self._threads.sleep(0.1)
        self.account.calls += 1
