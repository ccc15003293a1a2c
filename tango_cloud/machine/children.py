"""Forked children of the agent: how they start, give up root, and hand back what they found.

The agent has one thread, so a fork may go on running Python. A child costs about a millisecond,
which is why work in the job's files is done in one: it cannot be root by then.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable
from typing import Any

from tango_cloud.machine import syscalls
from tango_cloud.machine.facts import Facts, User
from tango_cloud.machine.failures import DAMAGED, Failure

TICK_SECONDS = 1.0


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
    """Tie this child's life to the agent's, whose process id is `agent`."""
    try:
        syscalls.die_with_parent(signal.SIGKILL)
    except OSError:
        return  # not Linux: a child notices by its streams' end, and a job is stopped by the agent
    if os.getppid() != agent:
        os._exit(1)


def in_child(facts: Facts, work: Callable[[], Any], on_wait: Callable[[], None]) -> Any:
    """What `work` returns (as JSON carries it), done in a child that is the job's user.

    `on_wait` is called about once a second meanwhile. Raises the Failure that `work` raises, and
    Failure (damaged) for anything else that goes wrong in it.
    """
    agent = os.getpid()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _work(facts, work, writer, agent)
    os.close(writer)
    try:
        answer = _read_all(reader, on_wait)
    finally:
        os.close(reader)
        _, status = os.waitpid(child, 0)
    if not answer:
        raise Failure(DAMAGED, f"a child of the agent ended with wait status {status}")
    result = json.loads(answer)
    if "failure" in result:
        raise Failure(*result["failure"])
    return result["value"]


def _work(facts: Facts, work: Callable[[], Any], writer: int, agent: int) -> None:
    try:
        reset_signals()
        if facts.separate:
            become(facts.job_user)
        die_with_agent(agent)
        os.umask(0o022)
        result: dict[str, Any] = {"value": work()}
    except Failure as failure:
        result = {"failure": [failure.kind, failure.message]}
    except BaseException as error:  # a forked child must not return into the agent's code
        result = {"failure": [DAMAGED, f"{type(error).__name__}: {error}"]}
    try:
        os.write(writer, json.dumps(result).encode())
    finally:
        os._exit(0)


def _read_all(reader: int, on_wait: Callable[[], None]) -> bytes:
    parts: list[bytes] = []
    while True:
        while not select.select([reader], [], [], TICK_SECONDS)[0]:
            on_wait()
        part = os.read(reader, 65536)
        if not part:
            return b"".join(parts)
        parts.append(part)
