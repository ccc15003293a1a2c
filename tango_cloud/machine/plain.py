"""The level "limits": no isolation but limits, and the certainty that nothing is left running.

Works everywhere. The job sees the machine's files and processes as its user does. A keeper stands
between the agent and the job: it adopts the job's daemons, kills everything once the job has ended,
and does the same when the agent dies.
"""

from __future__ import annotations

import contextlib
import os
import signal

from tango_cloud.machine import children, processes, syscalls
from tango_cloud.machine.facts import Facts
from tango_cloud.machine.launch import Launch, Level, environment, execute, wait_for_word
from tango_cloud.machine.rlimits import apply, running

_END_SECONDS = 5.0


class Plain(Level):
    name = "limits"
    own_network = False

    def enter(self, launch: Launch, go: int, status: int) -> None:
        with contextlib.suppress(OSError):  # not Linux: daemons escape, as `doctor` says
            syscalls.adopt_orphans()
        signal.signal(signal.SIGTERM, lambda *_: _end(128 + signal.SIGTERM))
        with contextlib.suppress(OSError):
            syscalls.die_with_parent(signal.SIGTERM)
        job = os.fork()
        if job == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _become_job(launch, go)
        for end in (go, status):
            os.close(end)
        while True:
            process, ended = os.waitpid(-1, 0)
            if process == job:
                _end(processes.shell_status(ended))

    def already_running(self, facts: Facts) -> int:
        return running(facts.job_user.uid)


def _become_job(launch: Launch, go: int) -> None:
    os.setsid()
    os.chdir(launch.folders.job)
    wanted = wait_for_word(go)
    if launch.facts.separate:
        children.become(launch.facts.job_user)
    with contextlib.suppress(OSError):
        syscalls.no_new_privileges()
    os.stat(launch.folders.tmp)  # the job's user must be able to walk there
    apply(wanted)
    execute(launch.command, environment(launch, launch.folders.job, launch.folders.tmp))


def _end(status: int) -> None:
    processes.end_descendants(_END_SECONDS)
    os._exit(status)
