"""Random walks: any interleaving of what callers, clouds and accidents do, in several processes.

`python -m tests.chaos.walk [--walks N] [--steps N] [--seed N]`
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from ..shared_cloud import Lies
from ..unit.conftest import MINIMUM_AGE
from .invariants import Picture, assert_consistent, assert_jobs_are_as_told, host_keys_in
from .journal import lines
from .orchestrator import DEPLOYMENT, Orchestrator, Place
from .steps import JOB

PROCESSES = 3
IDS = (1000, 1001, 1002)
ORDERS = st.lists(
    st.tuples(
        st.integers(0, PROCESSES - 1),
        st.sampled_from(
            [
                JOB,
                (*JOB, "safeDestroyVM"),
                *((name,) for name in (*JOB, "destroyVM", "safeDestroyVM", "reconcile")),
            ]
        ),
        st.sampled_from(IDS),
    ),
    min_size=1,
    max_size=5,
)
"""To which process, which steps, of which machine."""
LIES = st.sampled_from(
    [
        Lies(lag=0.3),
        Lies(lag=2.0),
        Lies(short=True),
        Lies(away=True),
        Lies(undying=True),
        Lies(lost=True),
        Lies(full=True),
        Lies(lost=True, lag=0.3),
        Lies(undying=True, short=True),
        Lies(lost=True, short=True),
    ]
)
_PASSES = 50
_AT_WORK_SECONDS = 2.0


class Walk(RuleBasedStateMachine):
    """At its end the cloud tells the truth, the processes are closed, and one more is killed at
    work; one pass of another must then put everything right. `tally` counts what all walks met."""

    tally: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self._place = Place(Path(tempfile.mkdtemp(prefix="tango-walk-")))
        self._cloud = self._place.cloud()
        self._orchestrators: list[Orchestrator] = []

    @initialize()
    def begin(self) -> None:
        self._judge = self._place.rig(self._cloud)
        self._start()

    @rule(orders=ORDERS)
    def ask(self, orders: Sequence[tuple[int, Sequence[str], int]]) -> None:
        for which, steps, number in orders:
            if self._orchestrators:
                self._orchestrators[which % len(self._orchestrators)].ask((steps, number))

    @rule(seconds=st.sampled_from((0.05, 0.2, 0.6)))
    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    @rule(lies=LIES, seconds=st.sampled_from((0.1, 0.5, 1.5)))
    def lie(self, lies: Lies, seconds: float) -> None:
        self._cloud.lie(lies)
        time.sleep(seconds)
        self._cloud.lie(Lies())

    @rule(name=st.sampled_from(("_start", "_kill", "_take_back", "_kill_terraform")))
    def accident(self, name: str) -> None:
        getattr(self, name)()

    def _start(self) -> None:
        if len(self._orchestrators) < PROCESSES:
            self._orchestrators.append(Orchestrator(self._place))

    def _kill(self) -> None:
        if self._orchestrators:
            self._orchestrators.pop().kill()

    def _take_back(self) -> None:
        """As a cloud does with spot machines."""
        for instance_id in list(self._cloud.running())[::2]:
            self._cloud.end(instance_id)

    def _kill_terraform(self) -> None:
        for wave in self._judge.ledger.waves.applying(DEPLOYMENT):
            if self._judge.waves.terraform_runs(wave):
                with suppress(ProcessLookupError):
                    os.kill(wave.terraform_pid, signal.SIGKILL)

    def teardown(self) -> None:
        self._cloud.lie(Lies())
        try:
            for orchestrator in self._orchestrators:
                orchestrator.close()
            self._start_and_kill_at_work()
            self._judge_it()
        finally:
            for orchestrator in self._orchestrators:
                orchestrator.kill()
            self._judge.fleet.close()
            self._judge.ledger.close()
            shutil.rmtree(self._place.folder)

    def _start_and_kill_at_work(self) -> None:
        """While it applies a wave, unless all machines are there already."""
        last = Orchestrator(self._place)
        for number in IDS:
            last.ask((JOB, number))
        deadline = time.monotonic() + _AT_WORK_SECONDS
        while not self._judge.ledger.waves.applying(DEPLOYMENT) and time.monotonic() < deadline:
            time.sleep(0.005)
        last.kill()

    def _judge_it(self) -> None:
        self._judge.ahead = self._cloud.ahead = MINIMUM_AGE
        self._count()
        self._reconcile()
        assert self._judge.reconciler.run() == [], "a second pass finds something"
        assert_consistent(self._picture())
        assert_jobs_are_as_told(self._place.ran, self._place.journal)
        for machine in self._judge.ledger.machines.all_live(DEPLOYMENT):
            self._judge.fleet.destroy_and_wait(machine.key, 10)
        assert self._judge.reconciler.run() == []
        left = self._picture()
        assert not left.booked, left
        assert_consistent(left)

    def _reconcile(self) -> None:
        """A pass leaves a wave alone whose Terraform still runs: that ends by itself."""
        for _ in range(_PASSES):
            outcomes = self._judge.reconciler.run()
            self.tally.update(f"found {o.finding.kind}: {o.finding.action}" for o in outcomes)
            assert not [outcome for outcome in outcomes if outcome.error], outcomes
            if all(outcome.finding.open for outcome in outcomes):
                return
            time.sleep(0.05)
        raise AssertionError(f"never at rest: {outcomes}")

    def _count(self) -> None:
        picture = self._picture()
        self.tally["walks"] += 1
        self.tally["instances at the end"] += len(picture.instances)
        self.tally["waves under way at the end"] += len(picture.applying)
        self.tally["jobs that began"] += len(lines(self._place.ran))
        for line in lines(self._place.journal):
            _, step, answer, *_ = line.split()
            told = f"{step} answered {answer}"
            if step == "reconcile":
                told = "passes"
            self.tally["calls" if answer == "begins" else told] += 1

    def _picture(self) -> Picture:
        ledger = self._judge.ledger
        return Picture(
            ledger.machines.all_live(DEPLOYMENT),
            ledger.waves.applying(DEPLOYMENT),
            self._cloud.running(),
            self._cloud.waves().keys(),
            host_keys_in(self._place.folder),
        )


def walk(walks: int, steps: int, number: int) -> None:
    """Raises what was wrong, with the walk that led there."""
    run_state_machine_as_test(
        seed(number)(Walk),
        settings=settings(
            max_examples=walks,
            stateful_step_count=steps,
            deadline=None,
            # Processes interleave as they please: a walk that failed may not fail a second time.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walks", type=int, default=300, metavar="N")
    parser.add_argument("--steps", type=int, default=40, metavar="N", help="of a walk, at most")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), metavar="N")
    given = parser.parse_args()
    sys.stdout.write(f"seed {given.seed}\n")
    sys.stdout.flush()
    try:
        walk(given.walks, given.steps, given.seed)
    finally:
        for what, times in sorted(Walk.tally.items()):
            sys.stdout.write(f"{what}: {times}\n")


if __name__ == "__main__":
    main()
