"""The process that makes hosts without root: each is a machine of the local provider.

It speaks as `spawner.py` does. In place of a kernel that ends everything with it, it outlives the
main process by the moment that it takes to stop its machines. They end at their expiry, too.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import secrets
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from emulation.keys import new_key
from emulation.loopback import PORT, translated
from emulation.spawner import PACKET, Spawner, channel
from tango_cloud.machine import syscalls
from tango_cloud.providers.local_host import examine
from tango_cloud.terraform.modules import modules_root

_EXPIRES = "/etc/tango-cloud/expires"
"""Where our user data has the expiry, in seconds since the epoch."""
_LONGEST_SECONDS = 86400
"""How long a machine lives whose user data has none."""
_END_SECONDS = 20
_KEYS = ("ed25519_private", "ed25519_public")


def fork_machines(folder: Path) -> Spawner:
    """Machines stand in `folder`, which goes with the last of them."""
    commands, their_commands = channel()
    events, their_events = channel()
    server, isolate = examine().choose("auto", "auto")
    pid = os.fork()
    if pid == 0:
        try:
            commands.close()
            events.close()
            _Machines(
                folder, {"server": server, "isolate": isolate}, their_commands, their_events
            ).run()
        finally:
            os._exit(1)
    their_commands.close()
    their_events.close()
    return Spawner(pid, commands, events, None)


@dataclass
class _Host:
    """`child` is its start, then its supervisor, then its stop; 0 for one that never answers."""

    host_id: str
    machine_id: str
    console: str
    child: int = 0
    step: str = "starting"
    """Then `running`, then `stopping`."""
    killed: bool = False


class _Machines:
    def __init__(
        self,
        folder: Path,
        kind: Mapping[str, object],
        commands: socket.socket,
        events: socket.socket,
    ) -> None:
        self._folder = folder
        self._kind = kind
        self._commands = commands
        self._events = events
        self._hosts: dict[str, _Host] = {}
        self._program = str(modules_root() / "local" / "wave" / "machine")

    def run(self) -> NoReturn:
        os.setsid()
        # Supervisors lose the parent that started them; we hear of their ends.
        syscalls.adopt_orphans()
        woken, wake = socket.socketpair()
        for end in (woken, wake):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno())
        poll = select.poll()
        poll.register(self._commands, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while True:
            poll.poll()
            with contextlib.suppress(BlockingIOError):
                woken.recv(1 << 12)
            commands = list(self._received())
            self._kill([command["kill"] for command in commands if "kill" in command])
            for command in commands:
                if "start" in command:
                    self._start(command["start"])
            self._collect()

    def _received(self) -> Iterator[dict[str, Any]]:
        while True:
            try:
                packet = self._commands.recv(PACKET, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if not packet:
                self._end()
            yield json.loads(packet)

    def _start(self, order: dict[str, Any]) -> None:
        host = _Host(order["id"], f"i-{secrets.token_hex(6)}", order["console"])
        config = order["config"]
        if config.get("ssh_publish_hostkeys", {}).get("enabled"):
            config["ssh_keys"] = new_key()
            self._tell(host, "host_key", key=config["ssh_keys"]["ed25519_public"])
        try:
            machine, secret = self._machine(order, host.machine_id)
        except (LookupError, ValueError, TypeError) as error:
            self._tell(host, "failed", reason=f"its user data: {error}")
            self._tell(host, "ended")
            return
        self._hosts[host.host_id] = host
        if not order["sshd"]:  # then there is nothing to it
            self._tell(host, "ready")
            return
        environment = {"TANGO_MACHINE": json.dumps(machine), "TANGO_USER_DATA": json.dumps(secret)}
        host.child = self._run("start", environment=environment, said=host.console)

    def _machine(
        self, order: dict[str, Any], machine_id: str
    ) -> tuple[dict[str, object], dict[str, object]]:
        """What to start, and its secrets; see start.py. Raises LookupError, ValueError, TypeError
        when the user data does not say who the machine is, and who may log in."""
        config = order["config"]
        private, public = (config.get("ssh_keys", {}).get(key) for key in _KEYS)
        keys = [
            key for user in config.get("users", ()) for key in user.get("ssh_authorized_keys", ())
        ]
        if not (private and public and keys):
            raise ValueError("without root a host needs an ed25519 host key and an authorized key")
        files = {file["path"]: file.get("content", "") for file in config.get("write_files", ())}
        expires = int(files.get(_EXPIRES) or time.time() + _LONGEST_SECONDS)
        machine: dict[str, object] = {
            **self._kind,
            "instance_id": machine_id,
            "uid": machine_id.removeprefix("i-"),
            "root": str(self._folder),
            "address": translated(order["address"]),
            "port": PORT,
            "expires": dt.datetime.fromtimestamp(expires, dt.UTC).isoformat(),
            "tags": {},
            **dict.fromkeys(("wave", "image", "instance_type", "zone", "market"), ""),
        }
        secret = {"host_private_key": private, "host_public_key": public, "authorized_keys": keys}
        return machine, secret

    def _kill(self, host_ids: list[str]) -> None:
        stopping = []
        for host_id in host_ids:
            host = self._hosts.get(host_id)
            if host is None or host.killed:
                continue
            host.killed = True
            if host.step == "starting" and host.child:
                os.kill(host.child, signal.SIGKILL)  # it is stopped when that is dead
            else:
                stopping.append(host)
        self._stop(stopping)

    def _stop(self, hosts: list[_Host]) -> None:
        """By one program: most of its time is that of its start."""
        if hosts:
            child = self._run("stop", str(self._folder), *(host.machine_id for host in hosts))
            for host in hosts:
                host.child, host.step = child, "stopping"

    def _collect(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # Of a machine that lost its start, or was stopped, the supervisor is nobody's.
            for host in [host for host in self._hosts.values() if host.child == pid]:
                self._advance(host, os.waitstatus_to_exitcode(status))

    def _advance(self, host: _Host, status: int) -> None:
        """What it waited for has ended."""
        if host.step == "starting":
            if host.killed:
                self._stop([host])
            elif status:
                said = Path(host.console).read_text(errors="replace").strip()
                self._tell(host, "failed", reason=said[-500:])
                self._over(host)
            else:
                self._begin(host)
        elif host.step == "running":  # by itself: it has expired, say
            self._tell(host, "poweroff")
            self._over(host)
        else:
            if status:
                self._tell(host, "failed", reason=f"it cannot be stopped: exit status {status}")
            self._over(host)

    def _begin(self, host: _Host) -> None:
        """It runs now, or has run already."""
        folder = self._folder / "instances" / host.machine_id
        host.step = "running"
        try:
            host.child = int(json.loads((folder / "instance.json").read_text())["supervisor"])
            os.kill(host.child, 0)
        except (OSError, ValueError):
            self._advance(host, 0)
            return
        # What its server says stays when its folder goes.
        Path(host.console).unlink()
        os.link(folder / "console.log", host.console)
        self._tell(host, "ready")

    def _over(self, host: _Host) -> None:
        del self._hosts[host.host_id]
        self._tell(host, "ended")

    def _run(
        self, *arguments: str, environment: Mapping[str, str] | None = None, said: str = os.devnull
    ) -> int:
        """The machine program."""
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", self._program, *arguments],
            {**os.environ, **(environment or {})},
            file_actions=_streams(said),
            setsigdef=[signal.SIGCHLD],
        )

    def _tell(self, host: _Host, event: str, **more: str) -> None:
        with contextlib.suppress(OSError):  # at the end nobody listens
            self._events.send(json.dumps({"id": host.host_id, "event": event, **more}).encode())

    def _end(self) -> NoReturn:
        """The main process is dead, or done."""
        self._kill([host.host_id for host in self._hosts.values()])
        deadline = time.monotonic() + _END_SECONDS
        while self._hosts and time.monotonic() < deadline:
            self._collect()
            time.sleep(0.01)
        while time.monotonic() < deadline:  # supervisors of machines that lost their start
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            time.sleep(0.01)
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(0)


def _streams(said: str) -> Sequence[tuple[Any, ...]]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    return (
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, said, flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    )
