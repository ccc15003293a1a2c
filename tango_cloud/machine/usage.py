"""What a job has used: the processor time and memory of all its processes."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable

_TICKS = os.sysconf("SC_CLK_TCK")
_MAXRSS_UNIT = 1 if os.uname().sysname == "Darwin" else 1024
"""Bytes in getrusage's unit of memory: kernels differ."""


class Usage:
    """Adds up what is told of a job's processes when they are reaped.

    What still runs when a sandbox's init ends is reaped by the kernel, which tells nobody what it
    had used: so a job's processes are also looked at before they are stopped.
    """

    def __init__(self) -> None:
        self._reaped_seconds = 0.0
        self._seen_seconds = 0.0
        self.peak_memory_bytes = 0
        """Of the largest process, or of all together where that was told. A process that was forked
        by the agent counts what the agent had in memory then, and so does all that it becomes."""

    @property
    def cpu_seconds(self) -> float:
        return max(self._reaped_seconds, self._seen_seconds)

    def reaped(self, usage: resource.struct_rusage) -> None:
        """Add a process, and what it has reaped itself."""
        self._reaped_seconds += usage.ru_utime + usage.ru_stime
        self._keep_peak(usage.ru_maxrss * _MAXRSS_UNIT)

    def told(self, seconds: float, peak: int) -> None:
        """Take what the kernel says of all the job's processes together."""
        self._seen_seconds = max(self._seen_seconds, seconds)
        self._keep_peak(peak)

    def look_at(self, processes: Iterable[int]) -> None:
        """Look at all that is left of the job, parents before children, so that none is counted
        twice. Finds nothing where there is no /proc.
        """
        seconds = 0.0
        for process in processes:
            with contextlib.suppress(OSError):
                seconds += _seconds(process)
                self._keep_peak(_peak(process))
        self._seen_seconds = max(self._seen_seconds, seconds)

    def _keep_peak(self, size: int) -> None:
        self.peak_memory_bytes = max(self.peak_memory_bytes, size)


def _seconds(process: int) -> float:
    """Its own processor time, and that of the children it has reaped."""
    with open(f"/proc/{process}/stat", "rb") as file:
        # The command's name, in parentheses, may itself hold spaces and parentheses.
        fields = file.read().rpartition(b")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS


def _peak(process: int) -> int:
    """The most memory that it had at once, in bytes; 0 when it has ended already."""
    with open(f"/proc/{process}/status", "rb") as file:
        for line in file:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
