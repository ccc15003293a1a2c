"""One job on one machine: copy in, run, copy out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tango_cloud.core.errors import JobRefused, MachineDamaged, TangoCloudError
from tango_cloud.core.model import Machine
from tango_cloud.jobs.job import DriverStatus, Job, JobResult, JobStatus, StepTimes
from tango_cloud.transports.protocol import OnOutput, RunOutcome, Session


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def execute(
    job: Job,
    session: Session,
    machine: Machine,
    times: StepTimes,
    output: Path,
    on_output: OnOutput | None = None,
    clock: Callable[[], dt.datetime] = utc_now,
) -> JobResult:
    """Run `job` through `session`; its output is in `output` afterwards, and its artifacts in the
    directory beside it that ends in `.artifacts`.

    `times` are those of the steps before. Raises what the session raises: InputError, OutputError,
    JobRefused, MachineUnreachable, MachineDamaged.
    """
    session.put(job.files)
    times = replace(times, copied_in=clock())
    outcome = session.run(job.limits, on_output, job.artifacts)
    times = replace(times, ran=clock())
    session.get(output)
    artifacts_dir = None
    if job.artifacts.paths:
        artifacts_dir = output.with_suffix(".artifacts")
        session.collect(artifacts_dir, job.artifacts.limit_bytes)
    times = replace(times, copied_out=clock())
    return JobResult(
        job=job.name,
        status=status_of(outcome),
        driver_status=driver_status_of(outcome),
        exit_status=outcome.exit_status,
        seconds=outcome.wall_seconds,
        cpu_seconds=outcome.cpu_seconds,
        peak_memory_bytes=outcome.peak_memory_bytes,
        output_bytes=outcome.output_bytes,
        output=output,
        artifacts=outcome.artifacts,
        artifacts_dir=artifacts_dir,
        machine=machine.key.instance_name,
        machine_uid=machine.uid,
        instance_id=machine.instance_id,
        level=outcome.level,
        times=times,
    )


def failed(
    job: Job,
    machine: Machine,
    times: StepTimes,
    error: TangoCloudError,
    status: JobStatus = JobStatus.ERROR,
) -> JobResult:
    """The result of a job that `error` kept from being run."""
    told = {JobRefused: DriverStatus.REFUSED, MachineDamaged: DriverStatus.DAMAGED}
    return JobResult(
        job=job.name,
        status=status,
        driver_status=told.get(type(error)),
        machine=machine.key.instance_name,
        machine_uid=machine.uid,
        instance_id=machine.instance_id,
        detail=str(error),
        times=times,
    )


def status_of(outcome: RunOutcome) -> JobStatus:
    """The job's status. Total: each outcome has exactly one."""
    if outcome.timed_out:
        return JobStatus.TIMED_OUT
    if outcome.disk_exceeded:
        return JobStatus.DISK_FULL
    return JobStatus.PASSED if outcome.exit_status == 0 else JobStatus.FAILED


def driver_status_of(outcome: RunOutcome) -> DriverStatus:
    if outcome.timed_out:
        return DriverStatus.TIMED_OUT
    return DriverStatus.DISK_FULL if outcome.disk_exceeded else DriverStatus.EXITED
