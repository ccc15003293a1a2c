"""The `ssh` transport, held to the contract against three real servers."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from tango_cloud.core.errors import JobRefused, MachineUnreachable
from tango_cloud.machine import bundle
from tango_cloud.transports.protocol import Transport
from tango_cloud.transports.ssh import SshTransport

from . import servers
from .jobs import Runner, limits, marker, wait_until_there
from .transport_contract import CONNECT_SECONDS, TransportContract


class SshContract(TransportContract):
    @pytest.fixture(scope="class")
    @classmethod
    def transport(cls) -> Transport:
        return SshTransport()


@pytest.mark.skipif(servers.SSHD is None, reason="OpenSSH's sshd is not installed")
class TestOpenSsh(SshContract):
    many = 500

    @staticmethod
    def start_machine() -> AbstractContextManager[servers.Server]:
        return servers.openssh()


@pytest.mark.slow  # both parts are in the VMMS contract on `local`
@pytest.mark.skipif(
    servers.SSHD is None or servers.BWRAP is None,
    reason="OpenSSH's sshd and bubblewrap are not both installed",
)
class TestOpenSshInBubblewrap(SshContract):
    many = 500

    @staticmethod
    def start_machine() -> AbstractContextManager[servers.Server]:
        return servers.openssh_in_bubblewrap()


class TestAsyncssh(SshContract):
    @staticmethod
    def start_machine() -> AbstractContextManager[servers.Server]:
        return servers.asyncssh_server()


def test_one_job_at_a_time(tmp_path: Path) -> None:
    word = marker()
    with servers.asyncssh_server() as machine:
        session = SshTransport().connect(machine.endpoint(), CONNECT_SECONDS)
        Runner(session, tmp_path).put(f"sh -c 'sleep 60; true' {word}")
        with ThreadPoolExecutor() as pool:
            running = pool.submit(session.run, limits())
            wait_until_there(word)
            other = SshTransport().connect(machine.endpoint(), CONNECT_SECONDS)
            with pytest.raises(JobRefused, match="another job"):
                other.put([])
            assert not running.done()
            session.close()
            with pytest.raises(MachineUnreachable):
                running.result(timeout=5)
            other.put([])  # the machine is free again at once
            other.close()


def test_a_job_that_is_refused_leaves_the_reason(tmp_path: Path) -> None:
    with servers.asyncssh_server(levels=["limits"]) as machine:
        session = SshTransport().connect(machine.endpoint(), CONNECT_SECONDS)
        job = Runner(session, tmp_path)
        job.put("echo ran")
        with pytest.raises(JobRefused, match="without network"):
            session.run(limits(network=False))
        session.get(job.output)
        said = job.output.read_text()
        assert said.startswith("Autodriver: Job refused: this machine cannot run a job without net")
        assert said.count("\n") == 1
        assert job.says("echo ran") == "ran\n"
        session.close()


@pytest.mark.skipif(shutil.which("scp") is None, reason="OpenSSH's scp is not installed")
def test_asyncssh_tells_scp_that_all_went_well(tmp_path: Path) -> None:
    (tmp_path / "sent").write_text("content")
    with servers.asyncssh_server() as machine:
        there = machine.endpoint()
        words = ["scp", "-q", "-F", "none", "-P", str(there.port), "-i", there.client_key_file]
        for option in ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"):
            words += ["-o", option]
        place = f"{there.username}@{there.address}:{tmp_path}/"
        subprocess.run([*words, str(tmp_path / "sent"), f"{place}between"], check=True)
        subprocess.run([*words, f"{place}between", str(tmp_path / "got")], check=True)
        missing = subprocess.run([*words, f"{place}absent", str(tmp_path / "got")], check=False)
    assert (tmp_path / "got").read_text() == "content"
    assert missing.returncode == 1


def test_a_fresh_host_key_is_staged_and_activated(tmp_path: Path) -> None:
    commands = {"stage": ["/bin/echo", "ssh-ed25519 AAAA comment"], "activate": ["/bin/true"]}
    with servers.asyncssh_server(host_key=commands) as machine:
        session = SshTransport().connect(machine.endpoint(), CONNECT_SECONDS)
        assert session.stage_host_key() == "ssh-ed25519 AAAA"
        session.activate_host_key()
        session.close()


def test_a_server_that_refuses_for_a_moment_is_tried_again() -> None:
    with servers.asyncssh_server() as machine:
        port = servers.free_port()
        forwarder = threading.Thread(target=_forward_later, args=(port, machine.port, 0.3))
        forwarder.start()
        session = SshTransport().connect(machine.endpoint(port=port), CONNECT_SECONDS)
        assert session.alive()
        session.close()
        forwarder.join()


def test_a_server_that_says_nothing_costs_no_more_than_the_time_given() -> None:
    with socket.socket() as silent, servers.asyncssh_server() as machine:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        with pytest.raises(MachineUnreachable):
            SshTransport().connect(machine.endpoint(port=silent.getsockname()[1]), 1.0)
        assert time.monotonic() - started < 3


def test_a_machine_without_python_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "command", lambda *, sudo: "echo no python here >&2; exit 127")
    with (
        servers.asyncssh_server() as machine,
        pytest.raises(MachineUnreachable, match="no python here"),
    ):
        SshTransport().connect(machine.endpoint(), CONNECT_SECONDS)


def test_a_machine_that_is_told_nonsense_says_so() -> None:
    with (
        servers.asyncssh_server(work_dir="relative") as machine,
        pytest.raises(MachineUnreachable, match="absolute path"),
    ):
        SshTransport().connect(machine.endpoint(), CONNECT_SECONDS)


def test_a_frozen_machine_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence, with the connection still there, as when a host hangs."""
    monkeypatch.setattr("tango_cloud.transports.ssh.channel.SILENCE_SECONDS", 3)
    with servers.asyncssh_server() as machine:
        session = SshTransport().connect(machine.endpoint(), CONNECT_SECONDS)
        job = Runner(session, tmp_path)
        job.put("sleep 60")
        family = machine.family()
        timer = threading.Timer(0.3, _freeze, [family])
        timer.start()
        try:
            started = time.monotonic()
            with pytest.raises(MachineUnreachable):
                job.session.run(limits())
            assert time.monotonic() - started < 30
        finally:
            timer.join()
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()


def _freeze(family: list[psutil.Process]) -> None:
    for process in family:
        process.suspend()


def _forward_later(port: int, target: int, seconds: float) -> None:
    """Refuse for a while, then pass one connection on."""
    time.sleep(seconds)
    with socket.create_server(("127.0.0.1", port)) as listener:
        inner, _ = listener.accept()
    with inner, socket.create_connection(("127.0.0.1", target)) as outer:
        back = threading.Thread(target=_copy, args=(outer, inner))
        back.start()
        _copy(inner, outer)
        back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
