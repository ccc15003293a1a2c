"""What a local machine is to those who log in, and what its end takes with it.

Each test runs for sshd in bubblewrap, sshd alone, asyncssh's server alone, and that in bubblewrap.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import paramiko
import psutil
import pytest

from tango_cloud.providers.protocol import Strays

from ..waiting import wait_until
from .local_cloud import Kind, connected, document, document_path, facts, one, run
from .provider_contract import Cloud, Keys

DAEMON = ["sleep", str(1_000_000 + os.getpid())]
"""A job's daemon: recognised among all processes of this host, other test runs' too."""


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
        os.kill(document(cloud, instance)[victim], signal.SIGKILL)
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


def test_the_folder_of_a_machine_that_died_with_its_supervisor_is_a_stray(cloud: Cloud) -> None:
    """As all do when the host is started anew."""
    instance, _, _ = one(cloud)
    for process in psutil.process_iter(["cmdline"]):
        if instance.instance_id in " ".join(process.info["cmdline"] or ()):
            process.kill()
    cloud.wait_until("prod", ())
    folder = document_path(cloud, instance).parent
    half_made = folder.with_name(".new-i-00000000000d")  # as when its start dies, too
    half_made.mkdir()
    assert isinstance(cloud.provider, Strays)
    strays = [stray.id for stray in cloud.provider.strays("prod")]
    assert strays == [instance.instance_id, "i-00000000000d"]
    cloud.provider.remove_strays(strays)
    assert not folder.exists()
    assert not half_made.exists()
    assert cloud.provider.strays("prod") == []


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_what_bwrap_left_behind_when_it_was_killed_is_a_stray(cloud: Cloud) -> None:
    """Its child waits for it for ever, and may have lost its supervisor."""
    instances = document_path(cloud, one(cloud)[0]).parents[1]
    inside = f"{instances}/i-00000000000d/inside"
    argv = ["bwrap", "--die-with-parent", "--ro-bind", "/", "/", "--setenv", "INSIDE", inside]
    argv += ["sleep", "600"]
    with subprocess.Popen(argv) as left_behind:
        try:
            assert isinstance(cloud.provider, Strays)
            wait_until(lambda: psutil.Process(left_behind.pid).name() == "bwrap")
            assert {s.id for s in cloud.provider.strays("prod")} == {"i-00000000000d"}
            cloud.provider.remove_strays(["i-00000000000d"])
            assert left_behind.wait(20) == -signal.SIGKILL
            assert cloud.provider.strays("prod") == []
        finally:
            left_behind.kill()
