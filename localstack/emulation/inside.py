"""A host from the inside: its first process, which sets the host up and then looks after it.

Everything is imported before it is forked: once it has its own files it may not find this
interpreter's any more.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any, NoReturn

from emulation import first_boot
from emulation.network import ip
from tango_cloud.machine import syscalls

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_POWEROFF = signal.SIGRTMIN + 4
_RELOAD = signal.SIGHUP
_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, _RELOAD, _POWEROFF}
_NAMESPACES = (
    syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWNET
)
_GRACE_SECONDS = 0.5
_RESTART_SECONDS = 0.5
_SSHD_SECONDS = 30
_SSHD_PID = Path("/run/sshd.pid")
_STAND_INS = Path(__file__).parent / "systemctl"
_TIMERS = Path("/run/emulation/timers")
_REFUSED = Path("/run/emulation/refused")
_UNITS = Path("/etc/systemd/system")
_DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9, "tty": 0}
_EMPTY = ("/tmp", "/var/tmp", "/run", "/home", "/root", "/mnt", "/media", "/dev/shm")
"""Where this machine has things that a fresh one has not."""


def become_init(
    order: dict[str, Any], gateway: str, folder: Path, link: socket.socket, events: socket.socket
) -> NoReturn:
    """In a process that is the first of its process namespace. `link`: we say when we have a
    network namespace, and hear when there is a link to the router in it."""
    try:
        syscalls.die_with_parent(signal.SIGKILL)
        os.setsid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        _console(order["console"])
        _close_all_but(link.fileno(), events.fileno())
        syscalls.unshare(_NAMESPACES)
        link.send(b".")
        if not link.recv(1):
            os._exit(1)
        link.close()
        _Init(order, events).run(gateway, folder)
    except BaseException as error:
        events.send(_event(order["id"], "failed", reason=f"{type(error).__name__}: {error}"))
    finally:
        os._exit(1)


class _Init:
    def __init__(self, order: dict[str, Any], events: socket.socket) -> None:
        self._order = order
        self._events = events
        self._sshd = 0
        self._runcmd = 0
        self._timers: dict[str, float] = {}
        """Unit to start, and when (seconds since the epoch)."""

    def run(self, gateway: str, folder: Path) -> NoReturn:
        socket.sethostname(self._order["hostname"])
        _set_up_network(self._order["address"], gateway)
        _set_up_files(folder, self._order["hostname"])
        faults = first_boot.prepare(self._order["config"])
        if faults:
            self._tell("failed", reason="; ".join(faults))
        # cloud-init itself puts them where the cloud's metadata service has a place for them.
        for key in first_boot.published(self._order["config"]):
            self._tell("host_key", key=key)
        if self._order["sshd"]:
            self._start_sshd()
            self._wait_for_sshd()
        if not faults:
            self._runcmd = _spawn("/bin/sh", first_boot.RUNCMD)
        while True:
            self._wait()

    def _wait(self) -> None:
        due = min([at - time.time() for at in self._timers.values()], default=3600.0)
        got = signal.sigtimedwait(_SIGNALS, max(due, 0.0))
        if got and got.si_signo in {_POWEROFF, signal.SIGTERM}:
            self._power_off()
        if got and got.si_signo == _RELOAD:
            self._read_timers()
        self._collect()
        for unit in [unit for unit, at in self._timers.items() if at <= time.time()]:
            del self._timers[unit]
            if unit == "":
                self._start_sshd()
            else:
                _spawn("/usr/bin/systemctl", "start", unit)

    def _collect(self) -> None:
        """Who has ended. Everything whose parent is dead is our child."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._sshd:
                self._timers[""] = time.time() + _RESTART_SECONDS  # as the service would be
            if pid == self._runcmd:
                self._finish_first_boot(os.waitstatus_to_exitcode(status))

    def _finish_first_boot(self, status: int) -> None:
        if _REFUSED.exists():
            self._tell("failed", reason=_REFUSED.read_text().strip())
        elif status:
            self._tell("failed", reason=f"runcmd: exit status {status}; see the console")
        else:
            self._tell("ready")

    def _start_sshd(self) -> None:
        self._sshd = _spawn(first_boot.sshd(), "-D", "-e")

    def _wait_for_sshd(self) -> None:
        """As what comes after its service does: it is up when it listens."""
        deadline = time.monotonic() + _SSHD_SECONDS
        while not _SSHD_PID.exists():
            if time.monotonic() > deadline:
                raise TimeoutError("sshd does not start: see the console")
            time.sleep(0.003)

    def _read_timers(self) -> None:
        for timer in _TIMERS.read_text().split():
            unit = (_UNITS / timer).read_text()
            lines = [line.partition("=") for line in unit.splitlines()]
            values = {key.strip(): value.strip() for key, _, value in lines}
            try:
                at = _moment(values["OnCalendar"])
            except (KeyError, ValueError):
                self._tell("failed", reason=f"{timer}: no OnCalendar= as it is supported here")
                continue
            service = values.get("Unit", timer.replace(".timer", ".service"))
            self._timers[service] = at

    def _power_off(self) -> NoReturn:
        self._tell("poweroff")
        os.kill(-1, signal.SIGTERM)
        time.sleep(_GRACE_SECONDS)
        os._exit(0)  # and the kernel kills the rest

    def _tell(self, event: str, **more: str) -> None:
        self._events.send(_event(self._order["id"], event, **more))


def _event(host_id: str, event: str, **more: str) -> bytes:
    return json.dumps({"id": host_id, "event": event, **more}).encode()


def _moment(calendar: str) -> float:
    """Of a systemd calendar expression that is one moment: `2026-11-24 15:00:00 UTC`."""
    day, hour, zone = calendar.split()
    if zone != "UTC":
        raise ValueError(calendar)
    return dt.datetime.fromisoformat(f"{day} {hour}+00:00").timestamp()


def _spawn(*argv: str) -> int:
    environment = {"PATH": _PATH, "LANG": "C.UTF-8"}
    return os.posix_spawn(
        argv[0], argv, environment, setsid=True, setsigmask=(), setsigdef=_SIGNALS
    )


def _console(path: str) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    console = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream, source in ((0, nothing), (1, console), (2, console)):
        os.dup2(source, stream)


def _close_all_but(*kept: int) -> None:
    start = 3
    for descriptor in sorted(kept):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, 4096)


def _set_up_network(address: str, gateway: str) -> None:
    ipv6 = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    if ipv6.exists():
        ipv6.write_text("1")
    ip(
        [
            "link set lo up",
            f"addr add {address}/32 dev eth0",
            "link set eth0 up",
            f"route add {gateway} dev eth0",
            f"route add default via {gateway} dev eth0 src {address}",
        ]
    )


def _set_up_files(folder: Path, hostname: str) -> None:
    """A root of its own over this machine's: what is written goes to memory, and with the host."""
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    top = str(folder)
    syscalls.mount("host", top, "tmpfs", 0, "mode=700")
    for name in ("upper", "work", "root"):
        os.mkdir(f"{top}/{name}", 0o755)
    stand_ins = _STAND_INS.read_bytes()
    root = f"{top}/root"
    layers = f"lowerdir=/,upperdir={top}/upper,workdir={top}/work"
    syscalls.mount("host", root, "overlay", 0, layers)
    syscalls.mount("proc", f"{root}/proc", "proc", _QUIET)
    syscalls.mount("sysfs", f"{root}/sys", "sysfs", _QUIET | syscalls.MS_RDONLY)
    _make_devices(f"{root}/dev")
    for path in _EMPTY:
        if os.path.isdir(root + path):
            mode = "755" if path in {"/run", "/home", "/mnt", "/media"} else "1777"
            syscalls.mount("host", root + path, "tmpfs", 0, f"mode={mode}")
    syscalls.change_root(root)
    os.chmod("/root", 0o700)
    _write_system(hostname, stand_ins)


_QUIET = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


def _make_devices(path: str) -> None:
    syscalls.mount("dev", path, "tmpfs", syscalls.MS_NOSUID, "mode=755")
    mask = os.umask(0)
    for name, minor in _DEVICES.items():
        device = os.makedev(5 if name == "tty" else 1, minor)
        os.mknod(f"{path}/{name}", 0o666 | 0o020000, device)
    os.umask(mask)
    for name in ("pts", "shm"):
        os.mkdir(f"{path}/{name}")
    syscalls.mount("devpts", f"{path}/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620,gid=5")
    for name, target in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd")):
        os.symlink(target, f"{path}/{name}")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{path}/{name}")


def _write_system(hostname: str, stand_ins: bytes) -> None:
    for path in ("/run/emulation", "/run/sshd", "/run/lock"):
        os.mkdir(path, 0o755)
    Path("/etc/hostname").write_text(f"{hostname}\n")
    with open("/etc/hosts", "a") as hosts:
        hosts.write(f"127.0.1.1 {hostname}\n")
    # A host may have systemd's, and links to it of the other names.
    for name in ("/usr/bin/systemctl", "/usr/sbin/shutdown", "/usr/sbin/poweroff"):
        program = Path(name)
        program.unlink(missing_ok=True)
        program.write_bytes(stand_ins)
        program.chmod(0o755)
