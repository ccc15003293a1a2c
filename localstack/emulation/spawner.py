"""The process that makes hosts, and is their router: small, single-threaded, forked early.

A host costs one fork of it and no start of an interpreter. Commands come as packets, JSON objects:

    {"start": {"id", "address", "hostname", "console", "sshd", "config"}}     {"kill": id}

Events go out in the same way, from here and from the hosts' inits, each with the host's `id`:

    {"event": "ready"} {"event": "failed", "reason"} {"event": "poweroff"} {"event": "ended"}
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from emulation import inside
from emulation.network import METADATA_ADDRESS, Network, NoNetwork, ip
from tango_cloud.machine import syscalls

PACKET = 1 << 17
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Spawner:
    """What the main process has of it. `metadata` listens where hosts expect that service."""

    pid: int
    commands: socket.socket
    events: socket.socket
    metadata: socket.socket | None


def fork_spawner(network: Network, folder: Path) -> Spawner:
    """Raises NoNetwork when this process may not make what hosts need."""
    commands, their_commands = channel()
    events, their_events = channel()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            commands.close()
            events.close()
            _Spawner(network, folder, their_commands, their_events).run(parent)
        except BaseException as error:
            with contextlib.suppress(OSError):
                their_events.send(json.dumps({"event": "broken", "reason": repr(error)}).encode())
        finally:
            os._exit(1)
    their_commands.close()
    their_events.close()
    message, descriptors, _, _ = socket.recv_fds(events, PACKET, 1)
    if not descriptors:
        os.waitpid(pid, 0)
        reason = json.loads(message)["reason"] if message else "it ended"
        raise NoNetwork(f"no hosts can be made here: {reason}")
    network.reach_router()
    return Spawner(pid, commands, events, socket.socket(fileno=descriptors[0]))


def channel() -> tuple[socket.socket, socket.socket]:
    """For packets."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    return ends


@dataclass
class _Host:
    """A host's init: `pid` of it here, `handle` to wait for, `link` to speak with it at first."""

    host_id: str
    pid: int
    handle: int
    link: socket.socket


class _Spawner:
    def __init__(
        self, network: Network, folder: Path, commands: socket.socket, events: socket.socket
    ) -> None:
        self._network = network
        self._folder = folder
        self._commands = commands
        self._events = events
        self._hosts: dict[int, _Host] = {}
        self._count = 0
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)

    def run(self, parent: int) -> NoReturn:
        syscalls.die_with_parent(signal.SIGKILL)
        # A terminal's interrupt is for the main process, which ends us when it has tidied up.
        os.setsid()
        syscalls.unshare(syscalls.CLONE_NEWNET)
        self._network.make_router(parent)
        with socket.create_server((METADATA_ADDRESS, 80), backlog=512) as listener:
            socket.send_fds(self._events, [b"{}"], [listener.fileno()])
        gc.freeze()  # nothing of what is here now is ever freed: hosts share its pages
        poll = select.poll()
        poll.register(self._commands, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor != self._commands.fileno():
                    poll.unregister(descriptor)
                    self._collect(descriptor)
            for host in self._obey(list(self._received())):
                poll.register(host.handle, select.POLLIN)

    def _received(self) -> Iterator[dict[str, Any]]:
        """All commands that are there: many hosts that are wanted together are made together."""
        while True:
            try:
                packet = self._commands.recv(PACKET, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if not packet:
                os._exit(0)  # and every host with us
            yield json.loads(packet)

    def _obey(self, commands: list[dict[str, Any]]) -> list[_Host]:
        for command in commands:
            for host in self._hosts.values():
                if host.host_id == command.get("kill"):
                    os.kill(host.pid, signal.SIGKILL)
        return self._start([command["start"] for command in commands if "start" in command])

    def _start(self, orders: list[dict[str, Any]]) -> list[_Host]:
        started = [self._fork(order) for order in orders]
        lines = []
        for order, host in zip(orders, started, strict=True):
            host.link.recv(1)  # it has its network namespace, or is dead
            self._count += 1
            name = f"h{self._count}"
            lines += [
                f"link add {name} type veth peer name eth0 netns {host.pid}",
                f"link set {name} up",
                f"route replace {order['address']} dev {name}",
            ]
        if lines:
            # Who gets no link finds no eth0, and says so.
            with contextlib.suppress(NoNetwork):
                ip(lines)
        for host in started:
            with contextlib.suppress(OSError):
                host.link.send(b".")
            host.link.close()
        return started

    def _fork(self, order: dict[str, Any]) -> _Host:
        ours, theirs = socket.socketpair()
        syscalls.unshare(syscalls.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            ours.close()
            inside.become_init(order, self._network.gateway, self._folder, theirs, self._events)
        theirs.close()
        # The next child is to be in our process namespace again.
        if _libc.setns(self._own_pids, syscalls.CLONE_NEWPID):
            raise OSError(ctypes.get_errno(), "setns")
        host = _Host(order["id"], pid, os.pidfd_open(pid), ours)
        self._hosts[host.handle] = host
        return host

    def _collect(self, handle: int) -> None:
        host = self._hosts.pop(handle)
        os.waitpid(host.pid, 0)
        os.close(handle)
        self._events.send(json.dumps({"id": host.host_id, "event": "ended"}).encode())
