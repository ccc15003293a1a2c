"""The level "namespaces": the same sandbox as bubblewrap's, made by the agent itself.

Needs nothing installed: the kernel's namespaces, entered by system calls. As root no user namespace
is made, and the job gives up root last; without root, a user namespace gives the right to the rest.
Three processes take part: one that outlives the namespaces and reports, the init of the process
namespace, whose end is the end of everything in it, and the job.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import socket
import struct

from tango_cloud.machine import children, mounts, processes, syscalls
from tango_cloud.machine.facts import Facts
from tango_cloud.machine.launch import Launch, Level, environment, execute, wait_for_word
from tango_cloud.machine.mounts import Mount
from tango_cloud.machine.rlimits import apply, running

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
_PRIVATE = (
    syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
)
_INIT = 1
"""Processes in the sandbox that are not the job's: its init."""
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


class Namespaces(Level):
    name = "namespaces"

    def enter(self, launch: Launch, go: int, status: int) -> None:
        network = 0 if launch.network else syscalls.CLONE_NEWNET
        if launch.facts.separate:
            syscalls.unshare(_PRIVATE | network)
        else:
            agent = os.getppid()
            _become_user_of_own_namespace(_PRIVATE | network)
            children.die_with_agent(agent)  # new rights may have undone it
        init = _fork_tied()
        if init == 0:
            _init(launch, go, status)
        for end in (go, status):
            os.close(end)
        _, ended = os.waitpid(init, 0)
        os._exit(processes.shell_status(ended))

    def already_running(self, facts: Facts) -> int:
        """With a user namespace of its own (without root, that is) only the sandbox's init."""
        return running(facts.job_user.uid) if facts.separate else _INIT


def _become_user_of_own_namespace(flags: int) -> None:
    """Enter new namespaces, keeping this user's number: inside, it is the only one there is."""
    uid, gid = os.geteuid(), os.getegid()
    syscalls.unshare(syscalls.CLONE_NEWUSER | flags)
    # The kernel lets a user without privilege map a group only after giving up setgroups.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _fork_tied() -> int:
    """Fork; the child is killed when this process ends, however it ends."""
    child = os.fork()
    if child == 0:
        syscalls.die_with_parent(signal.SIGKILL)
    return child


def _init(launch: Launch, go: int, status: int) -> None:
    """The first process of the process namespace: makes the root, starts the job, reaps."""
    _make_root(launch)
    socket.sethostname("job")
    if not launch.network:
        _raise_loopback()
    job = os.fork()
    if job == 0:
        _become_job(launch, go)
    for end in (go, status):
        os.close(end)
    while True:
        process, ended = os.waitpid(-1, 0)
        if process == job:
            os._exit(processes.shell_status(ended))


def _become_job(launch: Launch, go: int) -> None:
    os.setsid()
    os.chdir(mounts.JOB)
    env = environment(launch, mounts.JOB, mounts.TMP)
    wanted = wait_for_word(go)
    # Only now: until its own job runs, the job's user has no process here that would be counted.
    if launch.facts.separate:
        children.become(launch.facts.job_user)
    syscalls.no_new_privileges()
    apply(wanted)
    execute(launch.command, env)


def _make_root(launch: Launch) -> None:
    root = launch.folders.root
    quiet = syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("tmpfs", root, "tmpfs", quiet, "mode=755,size=1m")
    for mount in mounts.system():
        _mount(mount, root)
    for name in ("proc", "dev", "home", "run", "var"):
        os.makedirs(f"{root}/{name}", 0o755, exist_ok=True)
    syscalls.mount("proc", f"{root}/proc", "proc", quiet | syscalls.MS_NOEXEC)
    _make_devices(f"{root}/dev")
    for mount in mounts.own(launch.folders):
        _mount(mount, root)
    syscalls.change_root(root)
    flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY
    syscalls.mount("none", "/", "", flags | quiet)


def _mount(mount: Mount, root: str) -> None:
    target = root + mount.target
    if mount.kind == mounts.LINK:
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        os.symlink(mount.source, target)
    elif mount.kind == mounts.EMPTY:
        syscalls.mount("tmpfs", target, "tmpfs", syscalls.MS_RDONLY, "size=0,mode=755")
    else:
        os.makedirs(target, 0o755, exist_ok=True)
        _bind(mount.source, target, mount.kind == mounts.READ_ONLY)


def _bind(source: str, target: str, read_only: bool) -> None:
    """Bind, without set-user-id programs and devices; what was mounted with more limits keeps them,
    which the kernel demands of a user namespace."""
    syscalls.mount(source, target, "", syscalls.MS_BIND | syscalls.MS_REC)
    for mounted in _mounted(target):
        _limit(mounted, read_only)


def _mounted(target: str) -> list[str]:
    """`target` and all that is mounted below it."""
    with open("/proc/self/mountinfo", "rb") as file:
        points = [line.split()[4] for line in file]
    # The kernel writes blanks and the like in octal.
    paths = [os.fsdecode(re.sub(rb"\\([0-7]{3})", _character, point)) for point in points]
    return [path for path in paths if path == target or path.startswith(target + "/")]


def _character(octal: re.Match[bytes]) -> bytes:
    return bytes([int(octal[1], 8)])


def _limit(target: str, read_only: bool) -> None:
    kept = os.statvfs(target).f_flag
    flags = kept & (os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME | os.ST_RDONLY)
    if kept & os.ST_RELATIME:
        flags |= syscalls.MS_RELATIME  # the one flag whose number differs between the two calls
    if read_only:
        flags |= syscalls.MS_RDONLY
    flags |= syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("none", target, "", flags)


def _make_devices(folder: str) -> None:
    for name in _DEVICES:
        if os.path.exists(f"/dev/{name}"):
            with open(f"{folder}/{name}", "w", encoding="ascii"):
                pass
            syscalls.mount(f"/dev/{name}", f"{folder}/{name}", "", syscalls.MS_BIND)
    for name, text in _DEVICE_LINKS.items():
        os.symlink(text, f"{folder}/{name}")
    os.mkdir(f"{folder}/pts", 0o755)
    flags = syscalls.MS_NOSUID | syscalls.MS_NOEXEC
    with contextlib.suppress(OSError):  # some containers allow none; few jobs want a terminal
        syscalls.mount("devpts", f"{folder}/pts", "devpts", flags, "newinstance,ptmxmode=0666")
    os.symlink("pts/ptmx", f"{folder}/ptmx")


def _raise_loopback() -> None:
    """Bring up the new network's only interface: many tests talk to themselves."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH22x", b"lo", 0)
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
        flags = struct.unpack("16sH22x", answer)[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))
