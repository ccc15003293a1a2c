"""Control groups (version 2): limits on all of a job's processes together, their end in one stroke,
and what they have used.

Systemd owns the tree where it is the machine's init: there the agent asks it for a unit, moves into
it, and is handed what is below. Where it is not, an agent that is root makes a group of its own at
the top, and one that is not needs a group that the machine's facts name.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from tango_cloud.machine.facts import Facts
from tango_cloud.machine.rlimits import Limits

_TOP = "/sys/fs/cgroup"
_SYSTEMD = "/run/systemd/system"
"""Is there if and only if systemd is the init."""
_NEEDED = ("cpu", "memory", "pids")
_PREFIX = "tango-cloud-"
_PERIOD = 100_000
"""Microseconds over which processor time is shared out."""
_SANDBOX = 2
"""Processes in a group that are not the job's: those that hold up its view."""
_WAIT_SECONDS = 10.0
_PAUSE_SECONDS = 0.002


class Group:
    """One job's group. Raises OSError from any method, when the kernel does not do it."""

    def __init__(self, parent: str, name: str) -> None:
        self._path = os.path.join(parent, name)
        os.mkdir(self._path)

    def enter(self) -> None:
        """Put this process in, and so all that it starts from now on."""
        self._write("cgroup.procs", "0")

    def limit(self, limits: Limits) -> None:
        """Set the limits, before the job begins."""
        if limits.processes is not None:
            self._write("pids.max", str(limits.processes + _SANDBOX))
        if limits.memory_bytes is not None:
            self._write("memory.max", str(limits.memory_bytes))
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                self._write("memory.swap.max", "0")
        if limits.cpus is not None:
            self._write("cpu.max", f"{int(limits.cpus * _PERIOD)} {_PERIOD}")

    def kill(self) -> None:
        """Kill all of it at once: nothing in it can fork itself out of this."""
        self._write("cgroup.kill", "1")

    def used(self) -> tuple[float, int]:
        """Seconds of processor time, and the most bytes of memory at one time, the cached contents
        of files included (0 where the kernel, before 5.19, does not tell)."""
        told = dict(line.split() for line in self._read("cpu.stat").splitlines())
        peak = 0
        with contextlib.suppress(FileNotFoundError):
            peak = int(self._read("memory.peak"))
        return int(told["usage_usec"]) / 1e6, peak

    def remove(self) -> None:
        """Kill what is left, and remove the group."""
        self.kill()
        _wait(self._is_removed, f"{self._path} does not get empty")

    def _is_removed(self) -> bool:
        with contextlib.suppress(OSError):
            os.rmdir(self._path)
            return True
        return False

    def _read(self, name: str) -> str:
        with open(os.path.join(self._path, name), encoding="ascii") as file:
            return file.read()

    def _write(self, name: str, text: str) -> None:
        _write(self._path, name, text)


class Groups:
    """Makes the groups of this agent's jobs, in a place that `find_place` finds once."""

    def __init__(self, find_place: Callable[[Facts], str]) -> None:
        self._find_place = find_place
        self._place = ""
        self._made = 0

    def make(self, facts: Facts) -> Group:
        """Raises OSError, in words for a person, when there is no place for groups."""
        if not self._place:
            self._place = self._find_place(facts)
        self._made += 1
        return Group(self._place, f"{_PREFIX}{os.getpid()}-{self._made}")


def systemds_place(_: Facts) -> str:
    """A new unit, this process in it, that ends and goes when the process does."""
    if not os.path.isdir(_SYSTEMD):
        raise OSError("systemd is not this machine's init")
    if os.geteuid() != 0:
        raise OSError("only root gets a unit from systemd")
    _require_unified()
    import subprocess  # takes longer than all else here: only where it is needed

    unit = f"{_PREFIX}{os.getpid()}.scope"
    words = ["busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"]
    words += ["org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))"]
    words += [unit, "fail", "3", "PIDs", "au", "1", str(os.getpid()), "Delegate", "b", "true"]
    words += ["Description", "s", "Jobs of one tango_cloud agent", "0"]
    try:
        asked = subprocess.run(words, capture_output=True, text=True, timeout=_WAIT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise OSError("systemd does not answer") from error
    if asked.returncode != 0:
        raise OSError(f"systemd gives no unit: {asked.stderr.strip()}")
    _wait(lambda: _own_place().endswith("/" + unit), f"systemd does not put us into {unit}")
    place = _own_place()
    # A group that shares out controllers must not have processes of its own.
    own = Group(place, "agent")
    own.enter()
    _share_out(place)
    return place


def own_place(facts: Facts) -> str:
    """A group that this agent made, or was given."""
    _require_unified()
    if facts.cgroup:
        place = facts.cgroup
    elif os.geteuid() != 0:
        raise OSError("this machine's facts name no cgroup that is ours")
    elif os.path.isdir(_SYSTEMD):
        raise OSError("the groups of this machine are systemd's")
    else:
        place = os.path.join(_TOP, "tango-cloud")
        _share_out(_TOP)
        with contextlib.suppress(FileExistsError):
            os.mkdir(place)
    _share_out(place)
    _remove_abandoned(place)
    return place


def _wait(done: Callable[[], bool], fault: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise OSError(fault)
        time.sleep(_PAUSE_SECONDS)


def _require_unified() -> None:
    if not os.path.exists(os.path.join(_TOP, "cgroup.controllers")):
        raise OSError("the kernel's cgroups are not version 2 alone")


def _share_out(place: str) -> None:
    """Let the groups in `place` have limits. Raises OSError, naming what is missing."""
    with open(os.path.join(place, "cgroup.controllers"), encoding="ascii") as file:
        missing = set(_NEEDED).difference(file.read().split())
    if missing:
        raise OSError(f"no {', '.join(sorted(missing))} controller in {place}")
    _write(place, "cgroup.subtree_control", " ".join("+" + name for name in _NEEDED))


def _own_place() -> str:
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        return _TOP + file.read().strip().partition("::")[2]


def _remove_abandoned(place: str) -> None:
    """Remove the groups of agents that were killed."""
    for name in os.listdir(place):
        if name.startswith(_PREFIX):
            agent = name[len(_PREFIX) :].partition("-")[0]
            if not os.path.exists(f"/proc/{agent}"):
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.join(place, name))


def _write(folder: str, name: str, text: str) -> None:
    path = os.path.join(folder, name)
    try:
        # Not created: a file that is not there is a thing that this kernel does not do.
        with open(os.open(path, os.O_WRONLY), "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from error
