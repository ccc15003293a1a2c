"""A machine that has a system of its own, as one in a cloud has: root, accounts, packages."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import select
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from emulation.hosting import Hosting, hosting
from emulation.network import NoNetwork
from emulation.spawner import PACKET

from tango_cloud.core.model import Endpoint
from tango_cloud.providers import cloud_init
from tango_cloud.providers.protocol import Bootstrap

from .provider_contract import Keys

_SECONDS = 30.0
_HOST = "a-host"


@contextlib.contextmanager
def own_system(
    files: Sequence[Mapping[str, Any]] = (), commands: Sequence[Sequence[str]] = ()
) -> Iterator[Endpoint]:
    """A host that was given our user data, ready. `files` and `commands` come before ours, in
    cloud-init's words. Skips the test where there can be none, without root for one."""
    if os.geteuid() != 0 or any(shutil.which(name) is None for name in ("ip", "sshd", "sudo")):
        pytest.skip("a machine with a system of its own takes root, iproute2, sshd and sudo")
    host_key, login = Keys.make(), Keys.make()
    told = Bootstrap(
        host_private_key=host_key.private,
        host_public_key=host_key.public,
        authorized_keys=(login.public,),
        expires=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1),
    )
    config = json.loads(json.dumps(cloud_init.configuration(told, own_host_key=False)))
    config["write_files"] = [*files, *config["write_files"]]
    config["runcmd"] = [*commands, *config["runcmd"]]
    folder = Path(tempfile.mkdtemp(prefix="tango-cloud-test-"))
    try:
        client_key = folder / "client"
        client_key.touch(0o600)
        client_key.write_text(login.private)
        with _hosting(folder) as ours:
            address = str(ours.network.cidr[260])
            _boot(ours, address, config, folder / "console")
            yield Endpoint(
                address=address,
                port=22,
                username=cloud_init.LOGIN,
                host_keys=(" ".join(host_key.public.split()[:2]),),
                client_key_file=str(client_key),
                sudo=True,
            )
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _hosting(folder: Path) -> Iterator[Hosting]:
    with contextlib.ExitStack() as stack:
        try:
            ours = stack.enter_context(hosting(folder, None))
        except NoNetwork as error:
            pytest.skip(str(error))
        try:
            yield ours
        finally:
            for end in (ours.spawner.commands, ours.spawner.events, ours.spawner.metadata):
                if end is not None:  # the last keeps the network: it was made there
                    end.close()


def _boot(ours: Hosting, address: str, config: Mapping[str, Any], console: Path) -> None:
    order = {
        "id": _HOST,
        "address": address,
        "hostname": _HOST,
        "console": str(console),
        "sshd": True,
        "config": config,
    }
    ours.network.open(address)
    ours.spawner.commands.send(json.dumps({"start": order}).encode())
    deadline = time.monotonic() + _SECONDS
    while select.select([ours.spawner.events], [], [], deadline - time.monotonic())[0]:
        event = json.loads(ours.spawner.events.recv(PACKET))
        if event["event"] == "ready":
            return
        assert event["event"] == "host_key", f"{event}\n{console.read_text()}"
    pytest.fail(f"not ready after {_SECONDS} s: {console.read_text()}")
