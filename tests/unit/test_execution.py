"""One job on one machine, and what is told of it."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tango_cloud.core.errors import JobRefused, MachineDamaged, MachineUnreachable, TangoCloudError
from tango_cloud.jobs.execution import execute, failed
from tango_cloud.jobs.job import DriverStatus, Job, JobResult, JobStatus, StepTimes
from tango_cloud.transports.protocol import Artifact, Artifacts, ArtifactStatus, RunLimits

from .conftest import KEY, Rig, ready
from .fakes import OUTCOME

JOB = Job("job", (), RunLimits(wall_seconds=10))
BEGUN = dt.datetime(2024, 5, 6, 7, 8, 9, tzinfo=dt.UTC)


def _after(seconds: int) -> dt.datetime:
    return BEGUN + dt.timedelta(seconds=seconds)


def _result(rig: Rig, folder: Path, **outcome: Any) -> JobResult:
    """Of a job each of whose steps takes a second."""
    rig.transport.on_run = lambda *_: replace(OUTCOME, **outcome)
    machine, seconds = ready(rig), itertools.count(2)
    times = StepTimes(BEGUN, _after(1))
    return execute(
        JOB,
        rig.fleet.session(KEY),
        machine,
        times,
        folder / "out",
        clock=lambda: _after(next(seconds)),
    )


def test_a_result_has_all_that_is_known(rig: Rig, tmp_path: Path) -> None:
    result = _result(rig, tmp_path, exit_status=2, cpu_seconds=0.3, peak_memory_bytes=7)
    machine = rig.ledger.machines.live(KEY)
    assert machine is not None
    assert result == JobResult(
        job="job",
        status=JobStatus.FAILED,
        driver_status=DriverStatus.EXITED,
        exit_status=2,
        seconds=0.1,
        cpu_seconds=0.3,
        peak_memory_bytes=7,
        output_bytes=3,
        output=tmp_path / "out",
        machine="prod-1000-local",
        machine_uid=machine.uid,
        instance_id=f"i-{machine.uid}",
        level="limits",
        times=StepTimes(*map(_after, range(5))),
    )


def test_artifacts_are_fetched_when_they_are_asked_for(rig: Rig, tmp_path: Path) -> None:
    job = replace(JOB, artifacts=Artifacts(("report",), 10))
    machine = ready(rig)
    result = execute(job, rig.fleet.session(KEY), machine, StepTimes(), tmp_path / "a.b.txt")
    assert result.artifacts_dir == tmp_path / "a.b.artifacts"
    assert result.artifacts_dir.is_dir()
    assert result.artifacts == (Artifact("report", ArtifactStatus.FETCHED),)


@pytest.mark.parametrize(
    ("outcome", "status", "driver"),
    [
        ({"exit_status": 0}, JobStatus.PASSED, DriverStatus.EXITED),
        ({"exit_status": 137}, JobStatus.FAILED, DriverStatus.EXITED),
        (
            {"exit_status": None, "timed_out": True},
            JobStatus.TIMED_OUT,
            DriverStatus.TIMED_OUT,
        ),
        (
            {"exit_status": None, "disk_exceeded": True},
            JobStatus.DISK_FULL,
            DriverStatus.DISK_FULL,
        ),
    ],
)
def test_how_it_ended(
    rig: Rig, tmp_path: Path, outcome: dict[str, Any], status: JobStatus, driver: DriverStatus
) -> None:
    result = _result(rig, tmp_path, **outcome)
    assert (result.status, result.driver_status) == (status, driver)


@pytest.mark.parametrize(
    ("error", "driver"),
    [
        (JobRefused("no"), DriverStatus.REFUSED),
        (MachineDamaged("no"), DriverStatus.DAMAGED),
        (MachineUnreachable("no"), None),
    ],
)
def test_what_kept_it_from_being_run(
    rig: Rig, error: TangoCloudError, driver: DriverStatus | None
) -> None:
    machine = ready(rig)
    result = failed(JOB, machine, StepTimes(BEGUN), error)
    assert (result.status, result.driver_status, result.detail) == (JobStatus.ERROR, driver, "no")
    assert (result.machine_uid, result.times) == (machine.uid, StepTimes(BEGUN))
