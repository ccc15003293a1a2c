"""What a forked child of the agent does first.

The agent has one thread, so a fork may go on running Python.
"""

from __future__ import annotations

import os
import signal

from tango_cloud.machine import syscalls
from tango_cloud.machine.facts import User


def become(user: User) -> None:
    """Give up root for good. Raises OSError rather than go on with too much."""
    os.setgroups([])
    os.setgid(user.gid)
    os.setuid(user.uid)
    if os.getresuid() != (user.uid,) * 3 or os.getresgid() != (user.gid,) * 3:
        raise OSError("root was not given up")


def reset_signals() -> None:
    """Undo what the agent set up for itself, in a child that must not have it."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def die_with_agent(agent: int) -> None:
    """Tie this child's life to the agent's, whose process id is `agent`.

    A change of user undoes it: call it after that.
    """
    try:
        syscalls.die_with_parent(signal.SIGKILL)
    except OSError:
        return  # not Linux: a child notices by its pipes' end, and a job is stopped by the agent
    if os.getppid() != agent:
        os._exit(1)
