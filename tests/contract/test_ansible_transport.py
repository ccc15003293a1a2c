"""The `ansible` transport, held to the contract against a real server."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tango_cloud.core.errors import HostKeyMismatch
from tango_cloud.transports.ansible.transport import AnsibleTransport
from tango_cloud.transports.protocol import Transport

from . import servers
from .jobs import Runner, limits
from .transport_contract import CONNECT_SECONDS, TransportContract

pytestmark = pytest.mark.skipif(
    shutil.which("ssh") is None, reason="OpenSSH's client is not installed"
)
start_machine = servers.openssh if servers.SSHD else servers.asyncssh_server


@pytest.mark.slow  # each call starts Ansible
class TestAnsible(TransportContract):
    many = 500
    overhead_seconds = 10.0
    end_seconds = 15.0

    @pytest.fixture(scope="class")
    @classmethod
    def transport(cls) -> Transport:
        return AnsibleTransport()

    @staticmethod
    def start_machine() -> AbstractContextManager[servers.Server]:
        return start_machine()


def test_a_job_by_playbooks(tmp_path: Path) -> None:
    with start_machine() as machine:
        session = AnsibleTransport().connect(machine.endpoint(), 3 * CONNECT_SECONDS)
        job = Runner(session, tmp_path)
        job.put("cat 'a b'; seq 1 100000; exit 3", files={"a b": "{{ x }}\n"})
        heard: list[bytes] = []
        outcome = session.run(limits(), heard.append)
        session.get(job.output)
        session.close()
    assert outcome.exit_status == 2
    assert len(heard) > 1
    said = b"".join(heard)
    assert said.startswith(b"{{ x }}\n1\n2\n")
    assert b"\n99999\n100000\n" in said
    assert job.output.read_bytes() == b"Autodriver: Job exited with status 2\n" + said


def test_a_wrong_host_key_is_never_spoken_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_TRANSPORT", "local")  # of a user who has other uses for Ansible
    with start_machine() as machine:
        wrong = machine.endpoint(host_keys=(servers.write_keys(tmp_path),))
        with pytest.raises(HostKeyMismatch):
            AnsibleTransport().connect(wrong, 3 * CONNECT_SECONDS)
