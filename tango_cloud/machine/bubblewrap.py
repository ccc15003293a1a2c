"""The level "bubblewrap": a sandbox made by bwrap, without any privilege.

The job sees the system's directories read-only and its own; it has its own users, processes, IPC
and host name, and no network when that is cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping

from tango_cloud.machine import children, mounts
from tango_cloud.machine.facts import Facts
from tango_cloud.machine.folders import Folders
from tango_cloud.machine.launch import PATH, Launch, Level, environment
from tango_cloud.machine.mounts import Mount
from tango_cloud.machine.rlimits import prlimit_words

_INIT = 1
"""Processes in the sandbox that are not the job's: bwrap's own init."""
_GO = 9
# The limits are set inside: outside, the limit on processes would count all of this user's, and
# keep bwrap itself from starting.
_WAIT = f'read -r limits <&{_GO} && exec "$0" $limits -- "$@" {_GO}<&-'
_OPTION = {
    mounts.READ_ONLY: "--ro-bind",
    mounts.WRITABLE: "--bind",
    mounts.LINK: "--symlink",
}


class Bubblewrap(Level):
    name = "bubblewrap"

    def enter(self, launch: Launch, go: int, status: int) -> None:
        program = shutil.which("bwrap", path=PATH)
        prlimit = shutil.which("prlimit", path=PATH)
        if program is None or prlimit is None:
            missing = "bwrap (bubblewrap)" if program is None else "prlimit (util-linux)"
            raise OSError(f"{missing} is not installed")
        if launch.facts.separate:
            agent = os.getppid()
            children.become(launch.facts.job_user)
            children.die_with_agent(agent)  # giving up root undid it
        # Both numbers may be any; the shell below can name only those under ten.
        status = fcntl.fcntl(status, fcntl.F_DUPFD, 10)
        os.dup2(fcntl.fcntl(go, fcntl.F_DUPFD_CLOEXEC, 10), _GO)
        words = options(launch.folders, launch.network, status)
        words += ["--", "/bin/sh", "-c", _WAIT, prlimit, *launch.command]
        os.execve(program, [program, *words], environment(launch, mounts.JOB, mounts.TMP))

    def already_running(self, _: Facts) -> int:
        return _INIT

    def encode(self, wanted: Mapping[int, int]) -> bytes:
        return (" ".join(prlimit_words(wanted)) + "\n").encode()

    def fault(self, status: bytes) -> str:
        """bwrap writes JSON to the status pipe, the exit code last, if the job ever ran."""
        try:
            told = [json.loads(line) for line in status.splitlines()]
        except ValueError:  # not bwrap's: it was not even started
            return status.decode(errors="replace")
        return "" if any("exit-code" in line for line in told) else "bwrap made no sandbox"


def options(folders: Folders, network: bool, status: int) -> list[str]:
    """bwrap's options, up to the command."""
    words = ["--die-with-parent", "--unshare-user", "--unshare-pid", "--unshare-ipc"]
    words += ["--unshare-uts", "--hostname", "job", "--json-status-fd", str(status)]
    if not network:
        words.append("--unshare-net")
    words += ["--dir", "/run", "--dir", "/var", "--dir", "/home"]
    for mount in mounts.system():
        words += _words(mount)
    words += ["--proc", "/proc", "--dev", "/dev"]
    for mount in mounts.own(folders):
        words += _words(mount)
    # What is left writable of bwrap's own memory file systems would be a way around the disk limit.
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", mounts.JOB]


def _words(mount: Mount) -> list[str]:
    if mount.kind == mounts.EMPTY:
        return ["--tmpfs", mount.target, "--remount-ro", mount.target]
    return [_OPTION[mount.kind], mount.source, mount.target]
