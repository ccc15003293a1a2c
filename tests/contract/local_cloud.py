"""A local cloud of a test's own, for each kind of machine that this host can have."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import paramiko
import psutil
import pytest

from tango_cloud.core.errors import TerraformUnusable
from tango_cloud.core.model import Instance
from tango_cloud.providers.local import LocalOptions, LocalProvider
from tango_cloud.providers.local_host import examine
from tango_cloud.terraform.binary import resolve
from tango_cloud.terraform.environment import terraform_environment
from tango_cloud.terraform.runner import Terraform
from tango_cloud.terraform.workspace import Workspaces

from .provider_contract import Cloud, Keys, Wave, spoil_user_data

Kind = tuple[Literal["sshd", "asyncssh"], bool]
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


_PARAMETERS = [
    # These two differ in both: with what the others mix them from, `make test` would take longer.
    pytest.param(name, marks=() if name in {"sshd-bwrap", "asyncssh"} else pytest.mark.slow)
    for name in KINDS
]


@pytest.fixture(params=_PARAMETERS)
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
    provider = LocalProvider(LocalOptions(root, server, "yes" if isolate else "no"), "prod")
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


def document(cloud: Cloud, instance: Instance) -> dict[str, int]:
    found: dict[str, int] = json.loads(document_path(cloud, instance).read_text())
    return found


def document_path(cloud: Cloud, instance: Instance) -> Path:
    root = cloud.folder.parent / "local cloud"
    return root / "instances" / instance.instance_id / "instance.json"
