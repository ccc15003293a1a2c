"""What a job may use, by what was asked for and by the settings."""

from __future__ import annotations

from tango_cloud.core.errors import Fault, InputError
from tango_cloud.core.sections import LONGEST_SECONDS, JobSettings
from tango_cloud.transports.protocol import RunLimits

_KIB, _MIB = 1024, 1024 * 1024


def limits(
    job: JobSettings,
    *,
    timeout_seconds: float | None = None,
    output_bytes: int | None = None,
    network: bool = True,
) -> RunLimits:
    """What a job may use: as asked, and as the settings say for the rest.

    Raises InputError when the time-out or the output limit is not a positive number.
    """
    seconds = job.timeout_seconds if timeout_seconds is None else timeout_seconds
    kept = job.output_kib * _KIB if output_bytes is None else output_bytes
    faults = []
    if not 0 < seconds <= LONGEST_SECONDS:
        expected = f"seconds, greater than 0 and at most {LONGEST_SECONDS:.0f}"
        faults.append(Fault("timeout", f"{seconds} will not do", expected))
    if kept <= 0:
        faults.append(Fault("output limit", f"{kept} will not do", "bytes, greater than 0"))
    if faults:
        raise InputError(faults)
    return RunLimits(
        wall_seconds=seconds,
        output_bytes=kept,
        file_bytes=_times(job.file_mib, _MIB),
        disk_bytes=_times(job.disk_mib, _MIB),
        memory_bytes=_times(job.memory_mib, _MIB),
        processes=job.processes,
        cpus=job.cpus,
        network=network,
    )


def _times(count: int | None, unit: int) -> int | None:
    return None if count is None else count * unit
