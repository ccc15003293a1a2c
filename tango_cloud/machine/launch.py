"""Starting a job's first process: what all levels have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from tango_cloud.machine import children
from tango_cloud.machine.facts import Facts
from tango_cloud.machine.folders import Folders
from tango_cloud.machine.rlimits import Limits

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_FOUND = 127


class Launch(NamedTuple):
    """What to start, and where."""

    facts: Facts
    folders: Folders
    limits: Limits
    command: tuple[str, ...]


class Level:
    """A way to isolate a job. `name` is what results call it."""

    name = ""
    own_network = True
    """Whether this level can cut off the network, where the machine lets it."""

    def enter(self, launch: Launch, status: int) -> None:
        """Become the job, in a forked child whose streams are set up. Never returns.

        Raises OSError when the machine does not allow it.
        """
        raise NotImplementedError

    def fault(self, status: bytes) -> str:
        """Why the job never started, in words; empty when it did.

        `status` is what was written to the status pipe meanwhile.
        """
        return status.decode(errors="replace")


class Started(NamedTuple):
    """A job under way: its first process, the leader of a session, and its status pipe."""

    process: int
    status: int


def start(level: Level, launch: Launch, output: int) -> Started:
    """Start the job, its output going to the pipe `output`; returns at once."""
    agent = os.getpid()
    reader, writer = os.pipe()
    process = os.fork()
    if process:
        os.close(writer)
        return Started(process, reader)
    try:
        children.reset_signals()
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        children.die_with_agent(agent)
        os.umask(0o022)
        level.enter(launch, writer)
    except BaseException as error:  # a forked child must not return into the agent's code
        os.write(writer, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(1)


def environment(launch: Launch, home: str, tmp: str) -> dict[str, str]:
    """All that a job gets of an environment: nothing of the agent's own."""
    return {
        "HOME": home,
        "LANG": "C.UTF-8",
        "LOGNAME": launch.facts.job_user.name,
        "PATH": PATH,
        "TMPDIR": tmp,
        "USER": launch.facts.job_user.name,
    }


def execute(command: tuple[str, ...], env: Mapping[str, str]) -> None:
    """Become `command`, as a shell would: status 127 and a word in the output when there is none.

    Raises OSError when it is there and cannot be run.
    """
    try:
        os.execvpe(command[0], command, env)
    except FileNotFoundError:
        os.write(2, f"{command[0]}: not installed on this machine\n".encode())
        os._exit(NOT_FOUND)
