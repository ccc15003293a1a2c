"""One job on one machine: copy in, run, copy out."""

from __future__ import annotations

from pathlib import Path

from tango_cloud.jobs.job import Job, JobResult, JobStatus
from tango_cloud.transports.protocol import OnOutput, RunOutcome, Session


def execute(
    job: Job, session: Session, machine: str, output: Path, on_output: OnOutput | None = None
) -> JobResult:
    """Run `job` through `session`; its output is in `output` afterwards.

    Raises what the session raises: InputError, OutputError, JobRefused, MachineUnreachable,
    MachineDamaged.
    """
    session.put(job.files)
    outcome = session.run(job.limits, on_output)
    session.get(output)
    return JobResult(
        job=job.name,
        status=status_of(outcome),
        exit_status=outcome.exit_status,
        seconds=outcome.wall_seconds,
        cpu_seconds=outcome.cpu_seconds,
        peak_memory_bytes=outcome.peak_memory_bytes,
        output_bytes=outcome.output_bytes,
        output=output,
        machine=machine,
        level=outcome.level,
    )


def status_of(outcome: RunOutcome) -> JobStatus:
    """The job's status. Total: each outcome has exactly one."""
    if outcome.timed_out:
        return JobStatus.TIMED_OUT
    if outcome.disk_exceeded:
        return JobStatus.DISK_FULL
    return JobStatus.PASSED if outcome.exit_status == 0 else JobStatus.FAILED
