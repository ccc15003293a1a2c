"""Starting a job's first process: what all levels have in common.

A sandbox is made ahead, while the machine has nothing better to do, and waits in front of the job's
command until it is told the limits: most of a short job's time would otherwise go into making it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Mapping
from typing import NamedTuple

from tango_cloud.machine import children, processes, syscalls
from tango_cloud.machine.cgroups import Group
from tango_cloud.machine.facts import Facts
from tango_cloud.machine.folders import Folders
from tango_cloud.machine.rlimits import Limits, rlimits

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_FOUND = 127


class Launch(NamedTuple):
    """What to start, and where; all that has to be known before a job's limits are."""

    facts: Facts
    folders: Folders
    network: bool
    command: tuple[str, ...]


class Level:
    """A way to isolate a job. `name` is what results call it."""

    name = ""
    own_network = True
    """Whether this level can cut off the network, where the machine lets it."""
    whole_job = False
    """Whether limits count for all of a job's processes together, and processor time has one."""

    def group(self, _: Facts) -> Group | None:
        """A fresh group for one job, if the level has groups. Raises OSError."""
        return None

    def enter(self, launch: Launch, go: int, status: int) -> None:
        """Become the sandbox, in a forked child whose streams are set up; wait for the word that
        `encode` makes, on the pipe `go`; become the job. Never returns.

        Raises OSError when the machine does not allow it.
        """
        raise NotImplementedError

    def already_running(self, facts: Facts) -> int:
        """How many processes count against the job's limit on them before it starts."""
        raise NotImplementedError

    def encode(self, wanted: Mapping[int, int]) -> bytes:
        """The word to go, with the resource limits that the job gets."""
        return json.dumps(list(wanted.items())).encode()

    def fault(self, status: bytes) -> str:
        """Why the job never started, in words; empty when it did.

        `status` is what was written to the status pipe meanwhile.
        """
        return status.decode(errors="replace")


class Sandbox:
    """A sandbox that waits for the word to go. `process` leads a session of its own."""

    def __init__(self, level: Level, launch: Launch) -> None:
        """Start making it; returns at once. What goes wrong is told by `fault`, later, but for
        OSError when there is no group for it."""
        self.level = level
        self.launch = launch
        self.group = level.group(launch.facts)
        self._stamp = launch.folders.stamp()
        self.output, output = os.pipe()
        self._status, status = os.pipe()
        go, self._go = os.pipe()
        agent = os.getpid()
        self._counted: int | None = None
        self.process = os.fork()
        if self.process == 0:
            os.close(self._go)
            self._enter(agent, (go, output, status))
        for end in (go, output, status):
            os.close(end)

    def fits(self, level: Level, launch: Launch) -> bool:
        """Whether it waits for just this, and the directories are still those that it shows."""
        same = self.level is level and self.launch == launch
        return same and self._stamp == launch.folders.stamp() and not self._ended()

    def count(self) -> None:
        """Count now what `go` would count otherwise, which can take as long as a small job."""
        if self.group is None:
            self._counted = self.level.already_running(self.launch.facts)

    def go(self, limits: Limits) -> None:
        """Let the job begin. Raises OSError when the sandbox has died meanwhile."""
        if self.group is not None:
            self.group.limit(limits)
            limits = limits._replace(processes=None)
        elif limits.processes is not None and self._counted is None:
            self.count()
        os.write(self._go, self.level.encode(rlimits(limits, self._counted or 0)))
        os.close(self._go)
        self._go = -1

    def fault(self) -> str:
        """Why the job never started, in words; empty when it did. Only after its end."""
        return self.level.fault(read_rest(self._status))

    def discard(self) -> None:
        """End it, whatever it is doing, and what it holds open. Idempotent.

        Raises OSError when its group does not get empty.
        """
        if not self._ended():
            processes.send([*processes.descendants(self.process), self.process], signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.process, 0)
        for end in (self.output, self._status, self._go):
            if end >= 0:
                os.close(end)
        self.output = self._status = self._go = -1
        group, self.group = self.group, None
        if group is not None:
            group.remove()

    def _enter(self, agent: int, pipes: tuple[int, int, int]) -> None:
        go, output, status = pipes
        try:
            children.reset_signals()
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for source, target in ((null, 0), (output, 1), (output, 2)):
                os.dup2(source, target)
            children.die_with_agent(agent)
            with contextlib.suppress(OSError):  # no keyrings here, for anybody
                syscalls.new_session_keyring()
            os.umask(0o022)
            if self.group is not None:
                self.group.enter()
            self.level.enter(self.launch, go, status)
        except BaseException as error:  # a forked child must not return into the agent's code
            os.write(status, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(1)

    def _ended(self) -> bool:
        try:
            return (
                os.waitid(os.P_PID, self.process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            )
        except ChildProcessError:
            return True


def wait_for_word(go: int) -> dict[int, int]:
    """The resource limits, once the agent says go. The process ends here if it never does."""
    word = read_rest(go)
    if not word:
        os._exit(1)
    return {int(number): int(value) for number, value in json.loads(word)}


def read_rest(pipe: int) -> bytes:
    """All that is written to a pipe until its other end is closed."""
    parts: list[bytes] = []
    while True:
        part = os.read(pipe, 65536)
        if not part:
            return b"".join(parts)
        parts.append(part)


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
    # Not by os.execvpe: that imports a module, from a place which is out of sight by now.
    for folder in PATH.split(":"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.execve(os.path.join(folder, command[0]), command, env)
    os.write(2, f"{command[0]}: not installed on this machine\n".encode())
    os._exit(NOT_FOUND)
