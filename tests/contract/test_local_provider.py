"""The local provider: the contract, and what is special about machines on this host.

Each test runs for sshd in bubblewrap, sshd alone, asyncssh's server alone, and that in bubblewrap.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import paramiko
import psutil
import pytest

from tango_cloud.core.errors import ProviderUnavailable, TerraformUnusable
from tango_cloud.core.model import Instance, InstanceStatus, MachineRequest
from tango_cloud.providers.local import LocalOptions, LocalProvider, PortTaken
from tango_cloud.providers.local_host import examine
from tango_cloud.terraform.binary import resolve
from tango_cloud.terraform.environment import terraform_environment
from tango_cloud.terraform.modules import modules_root
from tango_cloud.terraform.runner import Terraform
from tango_cloud.terraform.workspace import Workspaces

from .provider_contract import Cloud, Keys, ProviderContract, Wave, spoil_user_data

Kind = tuple[Literal["sshd", "asyncssh"], bool]
DAEMON = ["sleep", str(1_000_000 + os.getpid())]
"""A job's daemon: recognised among all processes of this host, other test runs' too."""
KINDS: Mapping[str, Kind] = {
    "sshd-bwrap": ("sshd", True),
    "sshd": ("sshd", False),
    "asyncssh": ("asyncssh", False),
    "asyncssh-bwrap": ("asyncssh", True),
}


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory: pytest.TempPathFactory) -> Workspaces:
    try:
        binary = resolve()
    except TerraformUnusable as error:
        pytest.skip(str(error))
    environment = terraform_environment(os.environ, cli_config=None, plugin_cache=None)
    return Workspaces(tmp_path_factory.mktemp("workspaces"), Terraform(binary, environment))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    server, isolate = KINDS[request.param]
    host = examine()
    if isolate and host.bwrap_fault:
        pytest.skip(host.bwrap_fault)
    if server == "sshd" and (fault := host.sshd_fault or ("" if isolate else host.account_fault)):
        pytest.skip(fault)
    return server, isolate


@pytest.fixture
def cloud(kind: Kind, workspaces: Workspaces, tmp_path: Path) -> Iterator[Cloud]:
    server, isolate = kind
    root = tmp_path / "local cloud"  # a space, to see every quoting
    provider = LocalProvider(LocalOptions(root, server, "yes" if isolate else "no"))
    cloud = Cloud(
        provider,
        workspaces,
        tmp_path / "stacks",
        spoil=spoil_user_data,
        gone_within=20,
    )
    yield cloud
    with contextlib.suppress(FileNotFoundError):
        provider.terminate(
            path.name for path in (root / "instances").iterdir() if path.name.startswith("i-")
        )
    for envelope in tmp_path.glob("stacks/envelope-*"):
        cloud.remove_envelope(envelope.name.removeprefix("envelope-"))
    assert not root.exists(), "the last envelope's end is the end of an empty cloud"
    assert not [uid for uid in cloud.made if Path(f"/var/tmp/tango-cloud-i-{uid}").exists()]
    assert not _processes_of(root)


def _processes_of(root: Path) -> list[str]:
    """Command lines of live processes that name the cloud's folder or run from it."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or ())
        if str(root) in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(words)
    return found


@contextlib.contextmanager
def connected(
    cloud: Cloud, instance: Instance, *host_keys: Keys | str, client: Keys | None = None
) -> Iterator[paramiko.Transport]:
    """A connection to the machine, which must prove itself with one of `host_keys`."""
    with socket.create_connection((instance.address, instance.port), timeout=10) as raw:
        transport = paramiko.Transport(raw)
        try:
            transport.start_client(timeout=20)
            shown = transport.get_remote_server_key()
            accepted = [key if isinstance(key, str) else key.public for key in host_keys]
            assert f"{shown.get_name()} {shown.get_base64()}" in [
                " ".join(key.split()[:2]) for key in accepted
            ]
            key = paramiko.Ed25519Key(file_obj=io.StringIO((client or cloud.client).private))
            transport.auth_publickey(instance.username, key)
            yield transport
        finally:
            transport.close()


def run(transport: paramiko.Transport, command: str, data: bytes = b"") -> tuple[int, bytes, bytes]:
    """(exit status, stdout, stderr) of a command that is given `data`."""
    channel = transport.open_session(timeout=20)
    channel.settimeout(60)
    channel.exec_command(command)
    with contextlib.suppress(OSError):  # a command may end without reading all
        channel.sendall(data)
        channel.shutdown_write()
    out = b"".join(iter(lambda: channel.recv(65536), b""))
    error = b"".join(iter(lambda: channel.recv_stderr(65536), b""))
    status = channel.recv_exit_status()
    channel.close()
    return status, out, error


def one(cloud: Cloud, **options: object) -> tuple[Instance, Keys, Wave]:
    wave = cloud.wave("prod", 1, **options)  # type: ignore[arg-type]
    assert wave.failure is None, wave.failure
    (uid,) = wave.uids
    return cloud.listed("prod")[uid], wave.host_keys[uid], wave


def facts(transport: paramiko.Transport) -> Mapping[str, object]:
    """machine.json, as the machine itself reads it."""
    status, out, error = run(transport, 'cat "$TANGO_CLOUD_MACHINE"')
    assert (status, error) == (0, b"")
    found: Mapping[str, object] = json.loads(out)
    return found


class TestLocalProvider(ProviderContract):
    pass


def test_commands_stream_binary_both_ways_with_their_status(cloud: Cloud) -> None:
    instance, key, _ = one(cloud)
    data = os.urandom(3_000_000)
    with connected(cloud, instance, key) as transport:
        assert run(transport, "cat", data) == (0, data, b"")
        assert run(transport, "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")
        assert run(transport, "head -c 3 >/dev/null; exit 3", data)[0] == 3
        channels = [transport.open_session() for _ in range(8)]
        for number, channel in enumerate(channels):
            channel.exec_command(f"read x; echo $x {number}")
        for channel in channels:
            channel.sendall(b"go\n")
        assert [channel.makefile().read() for channel in channels] == [
            f"go {number}\n".encode() for number in range(8)
        ]


def test_a_client_that_does_not_read_stops_the_command(cloud: Cloud) -> None:
    instance, key, _ = one(cloud)
    with connected(cloud, instance, key) as transport:
        channel = transport.open_session(window_size=65536)
        channel.exec_command("head -c 50000000 /dev/zero; echo end >&2")
        time.sleep(0.5)
        assert not channel.recv_stderr_ready(), "it cannot have written all of it anywhere"


def test_files_by_sftp(cloud: Cloud) -> None:
    instance, key, _ = one(cloud)
    with connected(cloud, instance, key) as transport:
        work_dir = facts(transport)["work_dir"]
        sftp = paramiko.SFTPClient.from_transport(transport)
        assert sftp is not None
        sftp.putfo(io.BytesIO(b"content"), f"{work_dir}/file")
        assert run(transport, f"cat '{work_dir}/file'")[1] == b"content"


def test_nothing_but_the_authorized_key_logs_in(cloud: Cloud) -> None:
    instance, key, _ = one(cloud)
    with (
        pytest.raises(paramiko.AuthenticationException),
        connected(cloud, instance, key, client=Keys.make()),
    ):
        pass
    with socket.create_connection((instance.address, instance.port)) as raw:
        transport = paramiko.Transport(raw)
        transport.start_client(timeout=20)
        with pytest.raises(paramiko.BadAuthenticationType) as caught:
            transport.auth_none(instance.username)
        assert caught.value.allowed_types == ["publickey"]
        transport.close()


def test_sessions_have_a_small_clean_environment(cloud: Cloud) -> None:
    instance, key, _ = one(cloud)
    with connected(cloud, instance, key) as transport:
        environment = run(transport, "env")[1].decode()
        machine = facts(transport)
    names = {line.partition("=")[0] for line in environment.splitlines()}
    assert {"PATH", "HOME", "TANGO_CLOUD_MACHINE"} <= names
    assert names <= {
        *("PATH", "HOME", "TANGO_CLOUD_MACHINE", "LANG", "USER", "LOGNAME", "SHELL", "PWD"),
        *("MAIL", "SSH_CLIENT", "SSH_CONNECTION", "OLDPWD", "SHLVL", "_"),
    }
    assert "PRIVATE" not in environment
    assert {"work_dir", "job_user", "host_key", "python"} <= set(machine)
    assert (machine["job_user"] is None) == (os.geteuid() != 0)


def test_the_machine_keeps_no_user_data_in_a_process(cloud: Cloud) -> None:
    instance, key, _ = one(cloud)
    secret = key.private.splitlines()[2]
    with connected(cloud, instance, key) as transport:
        run(transport, "true")
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                assert secret not in str(process.environ())
                assert secret not in " ".join(process.cmdline())


def test_the_host_key_is_replaced_by_one_of_the_machines_own(cloud: Cloud) -> None:
    instance, first, _ = one(cloud)
    with connected(cloud, instance, first) as transport:
        commands = facts(transport)["host_key"]
        assert isinstance(commands, Mapping)
        stage, activate = (
            " ".join(f"'{word}'" for word in commands[verb]) for verb in ("stage", "activate")
        )
        status, staged, error = run(transport, stage)
        assert (status, error) == (0, b"")
        assert run(transport, stage)[1] == staged
        with connected(cloud, instance, first):
            pass
        assert run(transport, activate) == (0, b"", b"")
        own = staged.decode()
        with connected(cloud, instance, own) as second:
            assert run(second, stage)[1] == staged, "activated: the key in use"
            assert run(second, activate)[0] == 0
        assert run(transport, "echo still here")[1] == b"still here\n"
        with connected(cloud, instance, own):
            pass


def test_a_job_user_can_reach_the_work_dir_and_nothing_else(cloud: Cloud) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give jobs a user of their own")
    instance, key, _ = one(cloud)
    with connected(cloud, instance, key) as transport:
        machine = facts(transport)
        user, work_dir = machine["job_user"], machine["work_dir"]
        become = f"setpriv --reuid={user} --regid={user} --clear-groups"
        job = f"mkdir '{work_dir}/job'; chown {user} '{work_dir}/job'"
        assert run(transport, job)[0] == 0
        assert run(transport, f"{become} touch '{work_dir}/job/x'")[0] == 0
        assert run(transport, f"{become} touch '{work_dir}/x'")[0] != 0
        assert run(transport, f'{become} cat "$TANGO_CLOUD_MACHINE"')[0] != 0
        for place in ("/tmp", "/var/tmp", "/dev/shm"):
            script = f'file=$({become} mktemp -p {place}) && rm "$file"'
            assert run(transport, script)[0] == 0, place


def test_a_machine_in_bubblewrap_sees_itself_alone(cloud: Cloud, kind: Kind) -> None:
    if not kind[1]:
        pytest.skip("not isolated")
    wave = cloud.wave("prod", 2)
    one_of, other = (cloud.listed("prod")[uid] for uid in wave.uids)
    with connected(cloud, one_of, wave.host_keys[one_of.uid]) as transport:
        seen = run(transport, "ls -a / /machine; ls ~; ls -a /root /home; ps ax")[1].decode()
        assert other.instance_id not in seen
        assert run(transport, f"ls '{cloud.folder.parent}'")[0] != 0
        assert run(transport, f"ls '{Path.home()}/.ssh' '{Path.home()}/.bashrc'")[0] != 0
        assert run(transport, "touch /usr/x /etc/x")[0] != 0
        assert run(transport, "hostname")[1].decode().strip() == one_of.instance_id
        processes = run(transport, "ls /proc")[1].split()
        assert len([name for name in processes if name.isdigit()]) < 12
        # Not everything on this host: everything in the machine.
        with contextlib.suppress(Exception):
            run(transport, "kill -9 -1")
    with connected(cloud, other, wave.host_keys[other.uid]) as transport:
        assert run(transport, "echo unharmed")[1] == b"unharmed\n"


def test_what_a_job_leaves_goes_with_the_machine(cloud: Cloud) -> None:
    instance, key, _ = one(cloud)
    with connected(cloud, instance, key) as transport:
        machine = facts(transport)
        # A daemon, files that are closed to their owner, folders deeper than any path can be.
        daemon = " ".join(DAEMON)
        nest = "import os; [(os.mkdir('folder'), os.chdir('folder')) for _ in range(3000)]"
        script = f"""
            cd '{machine["work_dir"]}'
            setsid sh -c '{daemon} & {daemon}; :' </dev/null >/dev/null 2>&1 &
            mkdir -p closed/more && touch closed/more/x && chmod 0 closed/more closed
            ln -s / link; ln -s /nowhere dangling; mkfifo pipe
            '{machine["python"]}' -c "{nest}"
        """
        assert run(transport, script) == (0, b"", b"")
        assert _daemons() == 2
    cloud.provider.terminate([instance.instance_id])
    assert _daemons() == 0
    assert cloud.provider.instances("prod") == []


def _daemons() -> int:
    return sum(process.info["cmdline"] == DAEMON for process in psutil.process_iter(["cmdline"]))


@pytest.mark.parametrize("victim", ["pid", "supervisor"])
def test_a_machine_whose_process_is_killed_is_gone(cloud: Cloud, victim: str) -> None:
    instance, key, _ = one(cloud)
    with connected(cloud, instance, key) as transport:
        run(transport, f"setsid {' '.join(DAEMON)} </dev/null >/dev/null 2>&1 &")
        os.kill(_document(cloud, instance)[victim], signal.SIGKILL)
        if victim == "supervisor":
            # The server goes on; who removes the machine finds it all the same.
            cloud.provider.terminate([instance.instance_id])
        cloud.wait_until("prod", ())
    deadline = time.monotonic() + 20
    while cloud.provider.instances("prod"):
        assert time.monotonic() < deadline, "its folder goes by itself"
        time.sleep(0.05)
    if victim == "pid":
        assert _daemons() == 0
    for process in psutil.process_iter(["cmdline"]):
        if process.info["cmdline"] == DAEMON:
            process.kill()  # a daemon whose adoptive parent was killed: only a namespace holds it


def _document(cloud: Cloud, instance: Instance) -> dict[str, int]:
    found: dict[str, int] = json.loads(_document_path(cloud, instance).read_text())
    return found


def _document_path(cloud: Cloud, instance: Instance) -> Path:
    root = cloud.folder.parent / "local cloud"
    return root / "instances" / instance.instance_id / "instance.json"


def test_a_start_that_is_cut_short_leaves_nothing(cloud: Cloud, kind: Kind) -> None:
    """As Terraform cuts its provisioners short when it is interrupted: by SIGKILL."""
    if kind[0] != "asyncssh":
        pytest.skip("sshd is there before it can be cut short")
    wave = cloud.wave("prod", 0)
    uid = "00000000beef"
    request = _order(cloud, uid)
    machine = modules_root() / "local" / "wave" / "machine"
    start = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(machine), "start"],
        env={"TANGO_MACHINE": json.dumps(request), "TANGO_USER_DATA": _user_data(cloud)},
    )
    path = cloud.folder.parent / "local cloud" / "instances" / f"i-{uid}" / "instance.json"
    deadline = time.monotonic() + 20
    while not (path.exists() and json.loads(path.read_text())["pid"]):
        assert time.monotonic() < deadline
    start.kill()
    start.wait()
    cloud.wait_until("prod", ())
    while path.parent.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    cloud.destroy(wave)


def _order(cloud: Cloud, uid: str) -> dict[str, object]:
    envelope = cloud.envelope("prod")
    assert isinstance(envelope, dict)
    request = cloud._request("prod", "w", 1, uid, Keys.make(), dt.timedelta(minutes=5), "n")
    described = cloud.provider.wave_machines([request])[uid]
    assert isinstance(described, dict)
    return {
        **described,
        **{name: envelope[name] for name in ("root", "server", "isolate")},
        "uid": uid,
        "instance_id": f"i-{uid}",
        "wave": "w",
        "address": "127.0.0.1",
        "port": 10239,
    }


def _user_data(cloud: Cloud) -> str:
    keys = Keys.make()
    return json.dumps(
        {
            "host_private_key": keys.private,
            "host_public_key": keys.public,
            "authorized_key": cloud.client.public,
        }
    )


def test_what_an_interrupted_terraform_was_starting_ends_by_itself(cloud: Cloud) -> None:
    """Nobody would ever remove it: it is in no state, or as what failed there."""
    wave = cloud.wave("prod", 8, interrupt=True)
    assert wave.failure is not None
    known = set(wave.uids) - set(wave.errors)
    assert known
    deadline = time.monotonic() + cloud.gone_within
    root = cloud.folder.parent / "local cloud"
    while True:
        listed = cloud.listed("prod")
        assert known <= set(listed)
        # A machine may have come to run just before its start was killed: tags find it.
        expected = {instance.instance_id for instance in listed.values()}
        present = {path.name for path in (root / "instances").iterdir()}
        pending = [i for i in listed.values() if i.status is InstanceStatus.PENDING]
        if present == expected and not pending:
            break
        assert time.monotonic() < deadline, (present, expected, pending)
        time.sleep(0.05)


def test_a_port_that_is_taken_fails_that_machine_alone(cloud: Cloud) -> None:
    listeners: list[socket.socket] = []

    def occupy(request: MachineRequest) -> MachineRequest:
        if listeners:
            return request
        numbers = int(request.uid[:6], 16) % 2**22
        address = f"127.{64 + (numbers >> 16)}.{(numbers >> 8) & 255}.{numbers & 255}"
        listener = socket.create_server((address, 10240 + int(request.uid[6:], 16) % 22528))
        listeners.append(listener)
        return request

    wave = cloud.wave("prod", 2, change=occupy)
    listeners[0].close()
    assert wave.failure is not None
    assert set(wave.errors) == {wave.uids[0]}
    assert isinstance(cloud.provider.classify(wave.failure), PortTaken)
    assert set(cloud.listed("prod")) == {wave.uids[1]}


def test_a_machine_that_would_be_dead_already_is_refused(cloud: Cloud) -> None:
    wave = cloud.wave("prod", 1, life=dt.timedelta(seconds=-5))
    assert wave.failure is not None
    assert "is over" in wave.errors[wave.uids[0]]
    assert cloud.listed("prod") == {}


def test_a_damaged_document_is_an_error_and_not_an_empty_list(cloud: Cloud) -> None:
    instance, _, wave = one(cloud)
    path = _document_path(cloud, instance)
    whole = path.read_text()
    for damaged in (whole[:-20], "[]", "{}", json.dumps(json.loads(whole) | {"port": "x"})):
        path.write_text(damaged)
        with pytest.raises(ProviderUnavailable, match=instance.instance_id):
            cloud.provider.instances("prod")
    path.write_text(whole)
    assert set(cloud.listed("prod")) == set(wave.uids)


def test_terminate_refuses_what_is_no_instance_id(cloud: Cloud) -> None:
    with pytest.raises(ProviderUnavailable, match="not an instance id"):
        cloud.provider.terminate(["../.."])


def test_a_document_of_another_version_counts_as_present(cloud: Cloud) -> None:
    instance, _, _ = one(cloud)
    path = _document_path(cloud, instance)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "hibernating"}))
    assert cloud.listed("prod")[instance.uid] == replace(instance, status=InstanceStatus.UNKNOWN)
