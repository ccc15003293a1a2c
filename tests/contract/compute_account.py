"""A project on an emulated Compute Engine, and its machines."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import paramiko
import pytest
from google.auth.credentials import AnonymousCredentials

from ..compute.client import ComputeEmulation, Unavailable
from ..waiting import wait_until
from .local_cloud import run
from .provider_contract import Keys

SECONDS = 20.0
ZONE = "us-central1-a"
REGION = "us-central1"
IN_A_TAG = {"tango-deployment": "one"}


def start(folder: Path, *, loopback: bool = False) -> ComputeEmulation:
    try:
        return ComputeEmulation.start(folder, loopback=loopback)
    except Unavailable as error:
        pytest.skip(str(error))


class Account:
    """A project with a subnetwork in each of two regions, and one image."""

    def __init__(self, emulation: ComputeEmulation) -> None:
        self.emulation = emulation
        self.image = emulation.register_image("course")
        self.subnetworks = emulation.make_network("shared", REGION, "us-east1")
        self.host, self.login = Keys.make(), Keys.make()

    def client(self, kind: type[Any]) -> Any:
        """One of Google's own, at the endpoint where faults strike."""
        options = {"api_endpoint": self.emulation.endpoint}
        return kind(credentials=AnonymousCredentials(), client_options=options)

    def user_data(self, **more: object) -> str:
        config: dict[str, object] = {
            "ssh_deletekeys": True,
            "ssh_genkeytypes": [],
            "ssh_keys": {"ed25519_private": self.host.private, "ed25519_public": self.host.public},
            "users": [
                {
                    "name": "tango",
                    "shell": "/bin/sh",
                    "sudo": "ALL=(ALL) NOPASSWD:ALL",
                    "ssh_authorized_keys": [self.login.public],
                }
            ],
            **more,
        }
        return f"#cloud-config\n{json.dumps(config)}"

    def body(self, name: str, zone: str = ZONE, **more: object) -> dict[str, Any]:
        """Of an instance without user data: there is no host for it."""
        params = {"sourceImage": self.image, "labels": IN_A_TAG}
        return {
            "name": name,
            "machineType": f"zones/{zone}/machineTypes/e2-standard-2",
            "labels": IN_A_TAG,
            "disks": [{"boot": True, "autoDelete": True, "initializeParams": params}],
            "networkInterfaces": [{"subnetwork": self.subnetworks[zone.rpartition("-")[0]]}],
            **more,
        }

    def with_host(self, name: str, zone: str = ZONE, **more: object) -> dict[str, Any]:
        items = [{"key": "user-data", "value": self.user_data()}]
        return self.body(name, zone, metadata={"items": items}, **more)

    def ask(self, verb: str, path: str, content: object = None) -> Any:
        return self.emulation.ask(verb, path, content, quiet=False)

    def insert(self, body: Mapping[str, Any], zone: str = ZONE) -> Mapping[str, Any]:
        """The instance, when the operation is done. Raises Refused."""
        self.emulation.done(self.ask("POST", f"zones/{zone}/instances", body))
        return self.get(body["name"], zone)

    def get(self, name: str, zone: str = ZONE) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.emulation.ask("GET", f"zones/{zone}/instances/{name}")
        return found

    def status(self, name: str, zone: str = ZONE) -> str:
        """Of the instance's host; empty when there is none."""
        wanted = f"{zone}/{name}"
        found = {host["instance_id"]: host["status"] for host in self.emulation.hosts()}
        return found.get(wanted, "")

    def ready(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        made = self.insert(body)
        wait_until(lambda: self.status(body["name"]) != "booting", SECONDS)
        assert self.status(body["name"]) == "ready", self.emulation.console(
            f"{ZONE}/{body['name']}"
        )
        return made

    def command(self, instance: Mapping[str, Any], command: str) -> tuple[int, str]:
        """Exit status and output of a command; the machine must prove its host key."""
        address, port, login = self.emulation.place(instance["networkInterfaces"][0]["networkIP"])
        with socket.create_connection((address, port), timeout=5) as raw:
            transport = paramiko.Transport(raw)
            try:
                transport.start_client(timeout=10)
                key = transport.get_remote_server_key()
                if f"{key.get_name()} {key.get_base64()}" not in self.host.public:
                    raise paramiko.BadHostKeyException("", key, key)
                own = paramiko.Ed25519Key(file_obj=io.StringIO(self.login.private))
                transport.auth_publickey(login, own)
                status, out, error = run(transport, command)
                return status, (out + error).decode()
            finally:
                transport.close()


@pytest.fixture(scope="module")
def shared_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    emulation = start(tmp_path_factory.mktemp("compute"))
    try:
        yield Account(emulation)
    finally:
        emulation.stop()


@pytest.fixture
def account(shared_account: Account) -> Iterator[Account]:
    """Without orders from the test before, and without instances after it."""
    emulation = shared_account.emulation
    emulation.clear()
    emulation.reset_calls()
    yield shared_account
    emulation.clear()
    for instance in emulation.instances():
        zone = instance["zone"].rpartition("/")[2]
        emulation.ask("DELETE", f"zones/{zone}/instances/{instance['name']}")
    wait_until(lambda: not emulation.instances(), SECONDS)
    assert not emulation.hosts()
    assert not emulation.malformed()
