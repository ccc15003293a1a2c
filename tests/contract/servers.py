"""Real SSH servers for the tests, on loopback, each with keys and directories of its own."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import psutil

from tango_cloud.core.model import Endpoint

from . import jobs

UNPRIVILEGED = 54321
"""A user without an account, for servers that a test which is root runs without root."""
FIRST_JOB_USER, JOB_USERS = 1 << 30, 1 << 29
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
BWRAP = shutil.which("bwrap")
ASYNCSSH_SERVER = (
    Path(__file__).parents[2] / "terraform" / "local" / "wave" / "machine" / "asyncssh_server.py"
)


@dataclass
class Server:
    """A running server. `folder` is its own; the machine's work directory is `folder/work`."""

    folder: Path
    port: int
    username: str
    host_key: str
    process: subprocess.Popen[bytes]
    patience: float = 1.0
    """How much longer things may take there than on an idle host of today."""

    @property
    def ssh_port(self) -> int:
        """Where its SSH server listens, seen from the machine itself."""
        return self.port

    @property
    def host_key_file(self) -> str:
        return str(self.folder / "host")

    @property
    def work_dir(self) -> Path:
        return self.folder / "work"

    def endpoint(self, **changes: Any) -> Endpoint:
        values: dict[str, Any] = {
            "address": "127.0.0.1",
            "port": self.port,
            "username": self.username,
            "host_keys": (self.host_key,),
            "client_key_file": str(self.folder / "client"),
        }
        return Endpoint(**{**values, **changes})

    def family(self) -> list[psutil.Process]:
        """The server and everything below it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        return []

    def shell(self, command: str) -> str:
        """What a shell command prints there, run by who may do everything that these tests may."""
        argv = ["/bin/sh", "-c", command]
        return subprocess.run(argv, stdout=subprocess.PIPE, text=True).stdout

    def marked(self, word: str) -> Collection[object]:
        """The processes there with that word in their command line."""
        return jobs.marked(word)

    def kill_agents(self) -> None:
        """Kill the agents, but not the children that they forked."""
        found = {}
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                if any("SystemExit" in word for word in process.cmdline()):
                    found[process.pid] = process
        for process in [one for one in found.values() if one.ppid() not in found]:
            process.kill()

    def kill(self) -> None:
        """All of it at once, as when a machine loses power."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)


@contextlib.contextmanager
def folder(owner: int | None) -> Iterator[Path]:
    """A directory that every user can walk through (pytest's own cannot be)."""
    path = Path(tempfile.mkdtemp(prefix="tango-cloud-test-"))
    path.chmod(0o711)
    if owner is not None and os.geteuid() == 0:
        os.chown(path, owner, owner)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def job_user() -> int:
    """Whom the jobs of one machine run as, under an agent that is root: never two machines' jobs as
    the same, for the kernel counts a user's processes wherever they are."""
    return FIRST_JOB_USER + secrets.randbelow(JOB_USERS)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def write_keys(path: Path) -> str:
    """Make a host key and a client key there; return the host's public half."""
    for name in ("host", "client"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(path / name))
        key.write_public_key(str(path / f"{name}.pub"))
        (path / name).chmod(0o600)
    shutil.copy(path / "client.pub", path / "authorized_keys")
    return " ".join((path / "host.pub").read_text().split()[:2])


def as_user(uid: int | None) -> list[str]:
    """The words that start a command as that user, if this test may choose."""
    if uid is None or os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


def write_facts(path: Path, **facts: Any) -> None:
    told = {"work_dir": str(path / "work"), **facts}
    (path / "machine.json").write_text(json.dumps(told))


@contextlib.contextmanager
def running(path: Path, argv: list[str], port: int, username: str, key: str) -> Iterator[Server]:
    """The server that `argv` starts, answering; at the end nothing of it is left."""
    log = (path / "server.log").open("wb")
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    log.close()
    server = Server(path, port, username, key, process)
    try:
        deadline = time.monotonic() + 15
        while not _answers(port):
            assert process.poll() is None, (path / "server.log").read_text()
            assert time.monotonic() < deadline, (path / "server.log").read_text()
            time.sleep(0.02)
        yield server
    finally:
        family = server.family()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.terminate()
            process.wait(timeout=5)
        alive = _wait_for([one for one in family if one.pid != process.pid])
        for one in alive:
            one.kill()
        if process.poll() is None:
            process.kill()
            process.wait()
        assert not alive, f"left running: {alive}"
        # What hung on a connection ends when it notices that the connection has.
        left = _wait_for([one for one in psutil.process_iter() if mentions(one, path)])
        assert not left, f"left running: {left}"


def _wait_for(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of the processes that have not ended within some seconds.

    An orphan that has ended and that the host's init does not collect counts as ended.
    """
    deadline = time.monotonic() + 5
    while True:
        processes = [one for one in processes if _is_alive(one)]
        if not processes or time.monotonic() > deadline:
            return processes
        time.sleep(0.01)


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def mentions(process: psutil.Process, path: Path) -> bool:
    """Whether a process belongs to the server of that directory, by all it can be known by."""
    # OSError: a working directory may be deeper than any path may be long.
    with contextlib.suppress(psutil.Error, OSError):
        places = [process.cwd(), *process.cmdline(), *process.environ().values()]
        return any(str(path) in place for place in places)
    return False


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as peer:
        peer.settimeout(1)
        return peer.recv(4) == b"SSH-"
    return False


def sshd_config(path: Path, port: int, facts: Path) -> str:
    return f"""\
ListenAddress 127.0.0.1
Port {port}
HostKey {path}/host
AuthorizedKeysFile {path}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxSessions 50
MaxStartups 100
PrintMotd no
SetEnv TANGO_CLOUD_MACHINE={facts}
"""


@contextlib.contextmanager
def openssh(**facts: Any) -> Iterator[Server]:
    """sshd as whoever runs the tests; jobs run as a user of its own if that is root."""
    import pwd

    assert SSHD
    with folder(None) as path:
        key = write_keys(path)
        write_facts(path, **{"job_user": job_user(), **facts})
        port = free_port()
        (path / "sshd_config").write_text(sshd_config(path, port, path / "machine.json"))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where root's sshd locks itself in
        argv = [SSHD, "-D", "-e", "-f", str(path / "sshd_config")]
        username = pwd.getpwuid(os.geteuid()).pw_name
        with running(path, argv, port, username, key) as server:
            yield server


@contextlib.contextmanager
def openssh_in_bubblewrap(**facts: Any) -> Iterator[Server]:
    """sshd in a sandbox of its own, without privilege, as a `local` machine is."""
    assert SSHD
    assert BWRAP
    uid = UNPRIVILEGED if os.geteuid() == 0 else os.geteuid()
    with folder(uid) as path:
        key = write_keys(path)
        write_facts(path, **facts)
        port = free_port()
        (path / "sshd_config").write_text(sshd_config(path, port, path / "machine.json"))
        (path / "passwd").write_text(f"machine:x:{uid}:{uid}::{path}:/bin/sh\n")
        (path / "group").write_text(f"machine:x:{uid}:\n")
        if os.geteuid() == 0:
            for name in path.iterdir():
                os.chown(name, uid, uid)
        words = ["--die-with-parent", "--unshare-user", "--unshare-pid", "--unshare-ipc"]
        words += ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
        words += ["--bind", str(path), str(path)]
        words += ["--ro-bind", str(path / "passwd"), "/etc/passwd"]
        words += ["--ro-bind", str(path / "group"), "/etc/group"]
        argv = [*as_user(uid), BWRAP, *words, "--", SSHD, "-D", "-e"]
        argv += ["-f", str(path / "sshd_config")]
        with running(path, argv, port, "machine", key) as server:
            yield server


@contextlib.contextmanager
def asyncssh_server(**facts: Any) -> Iterator[Server]:
    """The server that the `local` provider brings along, as whoever runs the tests."""
    with folder(None) as path:
        for name in ("etc", "run"):
            (path / name).mkdir()
        key = write_keys(path)
        for name, source in (("host_key", "host"), ("authorized_keys", "client.pub")):
            shutil.copy(path / source, path / "etc" / name)
        write_facts(path, **{"job_user": job_user(), **facts})
        port = free_port()
        expires = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        machine = {
            "address": "127.0.0.1",
            "port": port,
            "username": "machine",
            "expires": expires.isoformat(),
            "environment": {
                "HOME": str(path),
                "PATH": os.environ["PATH"],
                "TANGO_CLOUD_MACHINE": str(path / "machine.json"),
            },
        }
        (path / "etc" / "machine.json").write_text(json.dumps(machine))
        argv = [sys.executable, str(ASYNCSSH_SERVER), str(path)]
        with running(path, argv, port, "machine", key) as server:
            yield server
