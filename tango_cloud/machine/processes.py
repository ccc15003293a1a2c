"""Finding, signalling and ending a process' descendants, daemons among them."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping

_PAUSE = 0.001
"""Seconds between two looks at processes that are being killed."""
_URGENT = -20
"""The nice value of who kills them."""


def parents() -> dict[int, int]:
    """Every process that can be seen, with its parent's id."""
    if sys.platform != "linux":
        return _parents_by_ps()
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The command's name, in parentheses, may itself hold spaces and parentheses.
                found[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    return found


def _parents_by_ps() -> dict[int, int]:
    with os.popen("/bin/ps -A -o pid=,ppid=") as ps:  # noqa: S605 - a constant
        pairs = [line.split() for line in ps]
    return {int(pair[0]): int(pair[1]) for pair in pairs if len(pair) == 2}


def descendants(root: int, tree: Mapping[int, int] | None = None) -> list[int]:
    """All processes below `root`, parents before children."""
    children: dict[int, list[int]] = {}
    for process, parent in (parents() if tree is None else tree).items():
        children.setdefault(parent, []).append(process)
    found: list[int] = []
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            found.append(child)
            waiting.append(child)
    return found


def send(processes: list[int], number: int) -> None:
    """Signal each; one that has ended meanwhile is fine."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)


@contextlib.contextmanager
def _before_all_others() -> Iterator[None]:
    """Have this process run first, if it may: hundreds that never rest would leave it no time."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _URGENT)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, usual)


@_before_all_others()
def end_descendants(
    seconds: float,
    spared: Collection[int] = (),
    on_reaped: Callable[[resource.struct_rusage], object] = lambda _: None,
) -> bool:
    """Kill and reap all descendants of this process, but for the children `spared` and theirs;
    whether none is left after `seconds`. What each had used is told to `on_reaped`.

    This process must adopt orphans for that to include daemons. All are stopped before any is
    killed: a stopped process keeps its place among those that a job may have, so that one which
    forks as fast as it can comes to an end.
    """
    began = time.monotonic()
    found: list[int] = []
    stopped: set[int] = set()
    while True:
        left = [
            child for child in _children() if child not in spared and not _reap(child, on_reaped)
        ]
        if not left:
            return True
        # Mostly there is just the init of a sandbox, dying: it needs no look at all processes.
        first = not found
        found = left if first else [*left, *_below(left)]
        running = [process for process in found if process not in stopped]
        send(running, signal.SIGSTOP)
        stopped.update(running)
        passed = time.monotonic() - began
        if first or not running or passed > seconds / 2:
            send(found, signal.SIGKILL)
            stopped.clear()
        if passed > seconds:
            return False
        time.sleep(_PAUSE)


def _below(roots: Collection[int]) -> list[int]:
    tree = parents()
    return [process for root in roots for process in descendants(root, tree)]


def _children() -> list[int]:
    """This process' children, those that have ended and were not reaped among them."""
    own = os.getpid()
    try:
        with open(f"/proc/self/task/{own}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:  # a kernel without it, or not Linux
        return [child for child, parent in parents().items() if parent == own]


def _reap(child: int, on_reaped: Callable[[resource.struct_rusage], object]) -> bool:
    """Collect the child if it has ended; whether it is gone."""
    try:
        process, _, usage = os.wait4(child, os.WNOHANG)
    except ChildProcessError:
        return True
    if process:
        on_reaped(usage)
    return process == child


def shell_status(status: int) -> int:
    """A wait status as a shell reports it: the exit status, or 128 and the signal's number."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)
