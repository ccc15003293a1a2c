"""What is told of a job's processes, added up."""

from __future__ import annotations

import os
import resource
import sys

import pytest

from tango_cloud.machine.usage import Usage

_MIB = 1 << 20


def _told(seconds: float, kib: int) -> resource.struct_rusage:
    return resource.struct_rusage((seconds, seconds, kib, *[0] * 13))


@pytest.mark.skipif(sys.platform != "linux", reason="its unit of memory is another")
def test_times_add_up_and_the_largest_process_counts() -> None:
    usage = Usage()
    usage.reaped(_told(1.0, 3000))
    usage.reaped(_told(0.25, 2000))
    assert usage.cpu_seconds == 2.5
    assert usage.peak_memory_bytes == 3000 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_process_seen_alive_counts_once() -> None:
    usage = Usage()
    before = sum(os.times()[:4])
    usage.look_at([os.getpid()])
    usage.look_at([os.getpid()])
    assert before - 0.1 < usage.cpu_seconds < sum(os.times()[:4]) + 0.1
    assert 5 * _MIB < usage.peak_memory_bytes < 2048 * _MIB
    seen = usage.cpu_seconds
    usage.reaped(_told(0.0, 1))  # by whoever had reaped less than was seen
    assert usage.cpu_seconds == seen


def test_a_process_that_is_gone_is_no_error() -> None:
    usage = Usage()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    usage.look_at([child])
    assert (usage.cpu_seconds, usage.peak_memory_bytes) == (0.0, 0)
