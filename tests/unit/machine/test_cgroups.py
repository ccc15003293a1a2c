"""A job's group, on files that stand for the kernel's. On a kernel: tests/machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tango_cloud.machine import cgroups, facts
from tango_cloud.machine.cgroups import Group, Groups
from tango_cloud.machine.failures import Failure
from tango_cloud.machine.rlimits import Limits

FREE = Limits.parse({"wall_seconds": 1})
FILES = ("cgroup.kill", "cgroup.procs", "cpu.max", "memory.max", "memory.swap.max", "pids.max")


@dataclasses.dataclass
class Kernel:
    """A group's files, as the kernel makes them."""

    group: Group
    folder: Path

    def wrote(self) -> dict[str, str]:
        found = {name: (self.folder / name).read_text() for name in FILES}
        return {name: text for name, text in found.items() if text}


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    group = Group(str(tmp_path), "job")
    for name in FILES:
        (tmp_path / "job" / name).touch()
    (tmp_path / "job" / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    return Kernel(group, tmp_path / "job")


def test_limits_are_the_jobs_own(kernel: Kernel) -> None:
    kernel.group.limit(FREE._replace(processes=10, memory_bytes=1 << 20, cpus=1.5))
    assert kernel.wrote() == {
        "pids.max": "12",
        "memory.max": "1048576",
        "memory.swap.max": "0",
        "cpu.max": "150000 100000",
    }


def test_what_is_not_limited_is_left_alone(kernel: Kernel) -> None:
    kernel.group.limit(FREE)
    assert kernel.wrote() == {}


def test_a_kernel_without_swap_has_no_limit_on_it(kernel: Kernel) -> None:
    (kernel.folder / "memory.swap.max").unlink()
    kernel.group.limit(FREE._replace(memory_bytes=5))
    assert (kernel.folder / "memory.max").read_text() == "5"
    assert not (kernel.folder / "memory.swap.max").exists()


def test_a_kernel_that_cannot_kill_a_group_says_so(kernel: Kernel) -> None:
    (kernel.folder / "cgroup.kill").unlink()
    with pytest.raises(FileNotFoundError, match=r"cgroup\.kill"):
        kernel.group.kill()


def test_what_was_used(kernel: Kernel) -> None:
    assert kernel.group.used() == (1.5, 0)
    (kernel.folder / "memory.peak").write_text("4096\n")
    assert kernel.group.used() == (1.5, 4096)


def test_a_place_is_looked_for_until_it_is_found(tmp_path: Path) -> None:
    there = False

    def find(_: facts.Facts) -> str:
        if not there:
            raise OSError("not now")
        return str(tmp_path)

    groups = Groups(find)
    told = facts.interpret({})
    with pytest.raises(OSError, match="not now"):
        groups.make(told)
    there = True
    groups.make(told)
    groups.make(told)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_place_that_is_named_needs_its_controllers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "_TOP", str(tmp_path))
    (tmp_path / "cgroup.controllers").write_text("cpu io pids\n")
    (tmp_path / "cgroup.subtree_control").touch()
    abandoned = tmp_path / "tango-cloud-4194305-1"  # more than any process id
    abandoned.mkdir()
    told = facts.interpret({"cgroup": str(tmp_path)})
    with pytest.raises(OSError, match="no memory controller"):
        cgroups.own_place(told)
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    assert cgroups.own_place(told) == str(tmp_path)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert not abandoned.exists()


def test_a_place_must_be_absolute() -> None:
    with pytest.raises(Failure, match="cgroup"):
        facts.interpret({"cgroup": "relative"})
