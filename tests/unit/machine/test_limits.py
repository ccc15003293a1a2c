from __future__ import annotations

import os
import resource
from typing import Any

import pytest

from tango_cloud.machine.bubblewrap import Bubblewrap
from tango_cloud.machine.failures import Failure
from tango_cloud.machine.processes import descendants, shell_status
from tango_cloud.machine.rlimits import Limits, prlimit_words, rlimits

ASKED: dict[str, Any] = {
    "wall_seconds": 3,
    "output_bytes": None,
    "file_bytes": 10,
    "disk_bytes": None,
    "memory_bytes": 20,
    "processes": 30,
    "network": False,
}


def test_limits_become_resource_limits() -> None:
    wanted = rlimits(Limits.parse(ASKED), already_running=4)
    assert wanted[resource.RLIMIT_CORE] == 0
    assert wanted[resource.RLIMIT_FSIZE] == 10
    assert wanted[resource.RLIMIT_DATA] == 20
    assert wanted[resource.RLIMIT_NPROC] == 34
    assert {"--core=0:0", "--fsize=10:10", "--data=20:20"} <= set(prlimit_words(wanted))


def test_no_limit_sets_none() -> None:
    free = Limits.parse({"wall_seconds": 1})
    assert set(rlimits(free, 0)) == {resource.RLIMIT_CORE, resource.RLIMIT_NOFILE}
    assert free.network


@pytest.mark.parametrize(
    "wrong",
    [
        {"wall_seconds": 0},
        {"wall_seconds": -1},
        {"wall_seconds": "abc"},
        {"wall_seconds": True},
        {"wall_seconds": float("nan")},
        {"wall_seconds": float("inf")},
        {"output_bytes": -1},
        {"processes": 1.5},
        {"memory_bytes": "1G"},
        {"cpus": 0},
        {"cpus": "all"},
        {"cpus": float("nan")},
    ],
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Failure, match=next(iter(wrong))):
        Limits.parse({**ASKED, **wrong})


def test_a_signal_is_never_success() -> None:
    assert shell_status(9) == 137
    assert shell_status(0) == 0
    assert shell_status(2 << 8) == 2


def test_descendants_are_found_through_generations() -> None:
    tree = {2: 1, 3: 2, 4: 3, 5: 1, 6: 9}
    assert set(descendants(1, tree)) == {2, 3, 4, 5}
    assert descendants(os.getpid(), {}) == []


def test_bubblewrap_tells_by_its_last_word_whether_the_job_ran() -> None:
    level = Bubblewrap()
    assert level.fault(b'{ "child-pid": 5 }\n{ "exit-code": 2 }\n') == ""
    assert level.fault(b'{ "child-pid": 5 }\n') != ""
    assert level.fault(b"") != ""
    assert level.fault(b"OSError: no bwrap") == "OSError: no bwrap"
