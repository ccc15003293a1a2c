"""How OpenSSH is told to reach a machine, and to verify it."""

from __future__ import annotations

import shlex
import stat

from tango_cloud.core.model import Endpoint
from tango_cloud.transports.ansible.host import Host

ENDPOINT = Endpoint(
    address="192.0.2.1",
    port=2222,
    username="tango",
    host_keys=("ssh-ed25519 AAAA", "ssh-rsa BBBB"),
    client_key_file="/keys/client",
    sudo=True,
)


def test_only_the_host_keys_of_the_endpoint_are_believed() -> None:
    host = Host(ENDPOINT, 7.5)
    variables = host.variables
    words = shlex.split(str(variables["ansible_ssh_args"]))
    known = (host.folder / "known_hosts").read_text()
    assert known == "machine ssh-ed25519 AAAA\nmachine ssh-rsa BBBB\n"
    assert {
        "GlobalKnownHostsFile=none",
        "HostKeyAlgorithms=ssh-ed25519,rsa-sha2-512,rsa-sha2-256",
        "HostKeyAlias=machine",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={host.folder}/known_hosts",
    } <= set(words)
    assert words[:2] == ["-F", "none"]
    assert variables["ansible_host"] == "192.0.2.1"
    assert variables["ansible_become"] is True
    assert variables["ansible_ssh_timeout"] == 7
    assert stat.S_IMODE(host.folder.stat().st_mode) == 0o700
    host.close()
    host.close()
    assert not host.folder.exists()
