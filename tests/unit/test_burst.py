"""A burst: every job gets exactly one result, and every machine goes."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest

from tango_cloud.core.errors import (
    InputError,
    JobRefused,
    MachineDamaged,
    MachineUnreachable,
    ProvisioningError,
)
from tango_cloud.core.model import Shape
from tango_cloud.jobs.job import DriverStatus, Job, JobStatus
from tango_cloud.orchestration.burst import Burst, Happening, MachinePlan, Step
from tango_cloud.transports.protocol import RunLimits, RunOutcome

from .conftest import Rig
from .fakes import OUTCOME, FakeSession


def _jobs(count: int) -> list[Job]:
    return [Job(f"job{n}", (), RunLimits(wall_seconds=10)) for n in range(count)]


def _burst(rig: Rig, folder: Path, *, keep: bool = False) -> tuple[Burst, list[Happening]]:
    seen: list[Happening] = []
    plan = MachinePlan(Shape("fake.img"), 3600, 10, 10, keep)
    return Burst(rig.fleet, plan, folder, seen.append), seen


def test_every_job_runs_once_and_nothing_is_left(rig: Rig, tmp_path: Path) -> None:
    burst, seen = _burst(rig, tmp_path)
    results = burst.run(_jobs(20), machines=4)
    assert [r.job for r in results] == [f"job{n}" for n in range(20)]
    assert {r.status for r in results} == {JobStatus.PASSED}
    assert sum(s.steps.count("run") for s in rig.transport.sessions) == 20
    assert len({r.machine for r in results}) <= 4
    assert not rig.cloud.alive
    assert [h.step for h in seen].count(Step.MACHINE_GONE) == 4
    assert (tmp_path / "job7.txt").read_bytes() == b"out"
    for result in results:
        times = dataclasses.astuple(result.times)
        assert None not in times
        assert sorted(times) == list(times)
        assert result.instance_id == f"i-{result.machine_uid}"
        assert result.driver_status is DriverStatus.EXITED


def test_a_job_goes_by_the_transport_that_it_names(rig: Rig, tmp_path: Path) -> None:
    one, two, three = _jobs(3)
    burst, _ = _burst(rig, tmp_path)
    jobs = [
        one,
        dataclasses.replace(two, transport="ansible"),
        dataclasses.replace(three, transport="ssh"),
    ]
    results = burst.run(jobs, machines=1)
    assert {r.status for r in results} == {JobStatus.PASSED}
    (own,) = rig.transport.sessions
    (named,) = rig.other.sessions
    assert own.steps.count("run") == 2
    assert named.steps == ["put", "run", "get"]
    assert named.endpoint.host_keys == ("ssh-ed25519 fresh",)
    assert own.closed
    assert named.closed


def test_there_are_never_more_machines_than_jobs(rig: Rig, tmp_path: Path) -> None:
    burst, seen = _burst(rig, tmp_path)
    burst.run(_jobs(2), machines=10)
    assert [h.step for h in seen].count(Step.MACHINE_REQUESTED) == 2


def test_kept_machines_stay(rig: Rig, tmp_path: Path) -> None:
    burst, _ = _burst(rig, tmp_path, keep=True)
    burst.run(_jobs(1), machines=1)
    assert len(rig.cloud.alive) == 1


@pytest.mark.parametrize("fault", [MachineUnreachable("cut off"), MachineDamaged("left a daemon")])
def test_a_machine_that_breaks_is_replaced_and_its_job_tried_once_more(
    rig: Rig, tmp_path: Path, fault: Exception
) -> None:
    faults = [fault]
    first: list[str] = []

    def run(session: FakeSession, limits: RunLimits) -> RunOutcome:
        if faults:
            first.extend(rig.cloud.alive)
            raise faults.pop()
        return OUTCOME

    rig.transport.on_run = run
    burst, _ = _burst(rig, tmp_path)
    results = burst.run(_jobs(3), machines=1)
    assert {r.status for r in results} == {JobStatus.PASSED}
    assert not set(first) & {r.instance_id for r in results}
    assert len(rig.cloud.applies) == 2
    assert not rig.cloud.alive


def test_a_job_that_breaks_every_machine_is_an_error_and_the_others_run(
    rig: Rig, tmp_path: Path
) -> None:
    def run(session: FakeSession, limits: RunLimits) -> RunOutcome:
        if limits.wall_seconds == 666:
            raise MachineUnreachable("cut off")
        return OUTCOME

    rig.transport.on_run = run
    burst, _ = _burst(rig, tmp_path)
    results = burst.run([Job("evil", (), RunLimits(666)), *_jobs(2)], machines=1)
    assert [r.status for r in results] == [JobStatus.ERROR, JobStatus.PASSED, JobStatus.PASSED]
    assert "cut off" in results[0].detail
    assert results[0].driver_status is None
    assert results[0].times.ready is not None
    assert results[0].times.ran is None


@pytest.mark.parametrize(
    ("fault", "told"),
    [(InputError([]), None), (JobRefused("no network control"), DriverStatus.REFUSED)],
)
def test_a_job_that_cannot_be_run_does_not_cost_the_machine(
    rig: Rig, tmp_path: Path, fault: Exception, told: DriverStatus | None
) -> None:
    def run(session: FakeSession, limits: RunLimits) -> RunOutcome:
        raise fault

    rig.transport.on_run = run
    burst, _ = _burst(rig, tmp_path)
    results = burst.run(_jobs(2), machines=1)
    assert {r.status for r in results} == {JobStatus.ERROR}
    assert {r.driver_status for r in results} == {told}
    assert len(rig.cloud.applies) == 1


def test_no_machine_at_all_gives_every_job_the_reason(rig: Rig, tmp_path: Path) -> None:
    rig.cloud.refuse = lambda _: ProvisioningError("no such network")
    burst, _ = _burst(rig, tmp_path)
    results = burst.run(_jobs(3), machines=2)
    assert {r.status for r in results} == {JobStatus.ERROR}
    assert all("no such network" in r.detail for r in results)
    assert all(r.times.asked is not None and r.times.ready is None for r in results)
    assert not rig.fleet.entries()


def test_a_cancelled_burst_stops_and_leaves_nothing(rig: Rig, tmp_path: Path) -> None:
    started = threading.Event()
    burst, _ = _burst(rig, tmp_path)

    def run(session: FakeSession, limits: RunLimits) -> RunOutcome:
        started.set()
        while not session.closed:
            threading.Event().wait(0.01)
        raise MachineUnreachable("closed")

    rig.transport.on_run = run
    thread = threading.Thread(target=lambda: results.extend(burst.run(_jobs(5), machines=1)))
    results: list[object] = []
    thread.start()
    assert started.wait(10)
    burst.cancel()
    thread.join(10)
    assert not thread.is_alive()
    assert {r.status for r in results} == {JobStatus.CANCELLED}  # type: ignore[attr-defined]
    assert not rig.cloud.alive


def test_a_listener_that_fails_costs_no_machine(rig: Rig, tmp_path: Path) -> None:
    asked: list[str] = []

    def fail_at_the_second(happening: Happening) -> None:
        if happening.step is Step.MACHINE_REQUESTED:
            asked.append(happening.machine)
            if len(asked) == 2:
                raise OSError("no space left")

    plan = MachinePlan(Shape("fake.img"), 3600, 10, 10)
    burst = Burst(rig.fleet, plan, tmp_path, fail_at_the_second)
    with pytest.raises(OSError, match="no space left"):
        burst.run(_jobs(3), machines=3)
    assert len(asked) == 2
    assert not rig.fleet.entries()
    assert not rig.cloud.alive
