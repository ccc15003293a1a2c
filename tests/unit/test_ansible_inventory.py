"""What Ansible is told of a deployment's machines."""

from __future__ import annotations

import re
import shlex
import stat
import subprocess
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tango_cloud.core.errors import CapacityError
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import InstanceStatus, MachineKey
from tango_cloud.orchestration import ansible_inventory

from .conftest import KEY, Rig, build_rig, ready, request
from .fakes import FakeCloud, FakeTransport

OTHER = MachineKey("prod", 1001, "15-213 labs")
CLIENT_KEY = Path("/state/id_ed25519")
KNOWN_HOSTS = Path("/state/known")


def _told(rig: Rig) -> dict[str, Any]:
    machines = ansible_inventory.usable(rig.fleet.entries())
    return ansible_inventory.document(machines, rig.fleet.sudo(), CLIENT_KEY, KNOWN_HOSTS)


def _variables(rig: Rig) -> Collection[dict[str, Any]]:
    told: dict[str, dict[str, Any]] = _told(rig)["_meta"]["hostvars"]
    return told.values()


def test_machines_of_all_clouds_are_told_by_provider_image_and_pool(
    ledger: Ledger, tmp_path: Path
) -> None:
    cheap, dear = FakeCloud("cheap", 1.0), FakeCloud("dear", 2.0)
    rig = build_rig(ledger, dear, FakeTransport(), tmp_path, others=[cheap])
    ready(rig)
    cheap.refuse = lambda _: CapacityError("full")
    ready(rig, OTHER)
    first, second = KEY.instance_name, OTHER.instance_name
    told = _told(rig)
    variables = told.pop("_meta")["hostvars"]
    assert told == {
        "image_fake_img": {"hosts": [first, second]},
        "pool_15_213_labs": {"hosts": [second]},
        "pool_local": {"hosts": [first]},
        "provider_cheap": {"hosts": [first]},
        "provider_dear": {"hosts": [second]},
    }
    assert sorted(variables) == sorted([first, second])
    dear.sudo = True
    assert {v["tango_provider"]: v["ansible_become"] for v in _variables(rig)} == {
        "cheap": False,
        "dear": True,
    }
    rig.fleet.close()


def test_a_machine_s_variables_say_how_to_reach_it_and_what_it_is(rig: Rig) -> None:
    machine = ready(rig)
    variables = _told(rig)["_meta"]["hostvars"][KEY.instance_name]
    assert "HostKeyAlias=" + machine.uid in variables.pop("ansible_ssh_common_args")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", variables.pop("tango_expires"))
    assert variables == {
        "ansible_host": "192.0.2.1",
        "ansible_port": 22,
        "ansible_user": "tango",
        "ansible_ssh_private_key_file": "/state/id_ed25519",
        "ansible_host_key_checking": True,
        "ansible_become": False,
        "tango_id": 1000,
        "tango_uid": machine.uid,
        "tango_provider": "fake",
        "tango_instance_id": f"i-{machine.uid}",
        "tango_image": "fake.img",
        "tango_pool": "local",
        "tango_state": "ready",
    }


def test_only_what_can_be_used_is_told(rig: Rig) -> None:
    assert _told(rig) == {"_meta": {"hostvars": {}}}
    rig.transport.listening = False
    rig.fleet.request(OTHER, ready(rig).shape, 3600)  # not ready yet
    assert list(_told(rig)["_meta"]["hostvars"]) == [KEY.instance_name]
    rig.fleet.lease(KEY)
    (variables,) = _told(rig)["_meta"]["hostvars"].values()
    assert variables["tango_state"] == State.LEASED


@pytest.mark.parametrize("status", [None, InstanceStatus.STOPPING])
def test_what_the_cloud_does_not_show_as_there_is_not_told(
    rig: Rig, status: InstanceStatus | None
) -> None:
    instance = rig.cloud.alive.pop(f"i-{ready(rig).uid}")
    if status is not None:
        rig.cloud.alive[instance.instance_id] = replace(instance, status=status)
    assert _told(rig) == {"_meta": {"hostvars": {}}}


def test_orphans_are_not_told(rig: Rig) -> None:
    request(rig)
    instance = rig.cloud.alive[f"i-{ready(rig).uid}"]
    rig.fleet.destroy_and_wait(KEY, 10)
    rig.cloud.alive[instance.instance_id] = instance
    assert [entry.state for entry in rig.fleet.entries()] == ["orphan"]
    assert _told(rig) == {"_meta": {"hostvars": {}}}


def test_host_keys_are_the_books_own_and_nobody_else_s_to_read(rig: Rig, tmp_path: Path) -> None:
    """Not the first key, which user data tells, once it has been replaced."""
    machine = ready(rig)
    file = tmp_path / "known"
    file.write_text("stale\n")
    ansible_inventory.write_known_hosts([machine], file)
    assert file.read_text() == f"{machine.uid} ssh-ed25519 fresh\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    changing = replace(machine, host_key="ssh-ed25519 old", host_key_next="ssh-ed25519 new")
    ansible_inventory.write_known_hosts([changing], file)
    assert file.read_text().splitlines() == [
        f"{machine.uid} ssh-ed25519 old",
        f"{machine.uid} ssh-ed25519 new",
    ]
    assert not list(tmp_path.glob(".known*"))


@pytest.mark.parametrize("folder", ["plain", "with a space", "100%d", "it's"])
def test_ssh_takes_the_arguments_as_meant(rig: Rig, folder: str) -> None:
    file = Path("/state", folder, "known")
    told = ansible_inventory.document([ready(rig)], (), CLIENT_KEY, file)
    arguments = told["_meta"]["hostvars"][KEY.instance_name]["ansible_ssh_common_args"]
    ssh = ["ssh", "-G", "-F", "/dev/null", *shlex.split(arguments), "192.0.2.1"]
    understood = subprocess.run(ssh, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "stricthostkeychecking true" in understood
    assert "globalknownhostsfile /dev/null" in understood
    assert "identitiesonly yes" in understood
    assert f"userknownhostsfile {file}" in [line.replace("%%", "%") for line in understood]
