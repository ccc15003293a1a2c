"""The machines that can be used, as Ansible's dynamic inventories tell them.

Groups are `provider_<name>`, `image_<name>` and `pool_<name>`, where the pool is what the machines
are called. What Ansible cannot bear in a group's name becomes an underscore, so that two names may
share a group; the variables of each machine have them in full.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import shlex
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from tango_cloud.core.lifecycle import USABLE
from tango_cloud.core.model import PRESENT, Machine
from tango_cloud.orchestration.fleet import Entry

KNOWN_HOSTS = "ansible_known_hosts"
"""The file in the deployment's folder that has the host keys of the machines last told."""

_UNFIT = re.compile(r"[^A-Za-z0-9_]")


def usable(entries: Iterable[Entry]) -> Sequence[Machine]:
    """Those that are ready or held by a job, and shown by the cloud as there."""
    return [
        entry.machine
        for entry in entries
        if entry.machine is not None
        and entry.machine.state in USABLE
        and entry.instance is not None
        and entry.instance.status in PRESENT
    ]


def document(
    machines: Iterable[Machine], sudo: Collection[str], client_key: Path, known_hosts: Path
) -> dict[str, Any]:
    """What `--list` prints, with the variables of all machines, so that Ansible asks but once.

    `sudo` are the providers on whose machines one becomes root; `known_hosts` is the file that
    `write_known_hosts` wrote of the same machines.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    variables: dict[str, dict[str, Any]] = {}
    for machine in machines:
        name = machine.key.instance_name
        variables[name] = _variables(machine, client_key, known_hosts)
        variables[name]["ansible_become"] = machine.provider in sudo
        for kind, value in (
            ("provider", machine.provider),
            ("image", machine.shape.image),
            ("pool", machine.key.name),
        ):
            groups[group_name(kind, value)].append(name)
    hosts = {group: {"hosts": names} for group, names in sorted(groups.items())}
    return {**hosts, "_meta": {"hostvars": variables}}


def group_name(kind: str, value: str) -> str:
    return f"{kind}_{_UNFIT.sub('_', value)}"


def write_known_hosts(machines: Iterable[Machine], file: Path) -> None:
    """Replace `file` (0600) by the keys that the books have of these machines: of each the one that
    it must prove itself with, under its uid, and while that is being replaced the next one too.
    """
    descriptor, scratch = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as handle:
            handle.writelines(
                f"{machine.uid} {key}\n"
                for machine in machines
                for key in (machine.host_key, machine.host_key_next)
                if key
            )
        Path(scratch).replace(file)
    except BaseException:
        Path(scratch).unlink()
        raise


def _variables(machine: Machine, client_key: Path, known_hosts: Path) -> dict[str, Any]:
    return {
        "ansible_host": machine.address,
        "ansible_port": machine.port,
        "ansible_user": machine.username,
        "ansible_ssh_private_key_file": str(client_key),
        "ansible_ssh_common_args": _ssh_arguments(machine.uid, known_hosts),
        # Else a setting of Ansible's that turns the check off would come before our arguments.
        "ansible_host_key_checking": True,
        "tango_id": machine.key.id,
        "tango_uid": machine.uid,
        "tango_provider": machine.provider,
        "tango_instance_id": machine.instance_id,
        "tango_image": machine.shape.image,
        "tango_pool": machine.key.name,
        "tango_state": str(machine.state),
        "tango_expires": dt.datetime.fromtimestamp(machine.expires_at, dt.UTC).isoformat(
            timespec="seconds"
        ),
    }


def _ssh_arguments(uid: str, known_hosts: Path) -> str:
    """The machine is known by its uid: addresses are given to one machine after another."""
    file = str(known_hosts).replace("%", "%%")  # ssh's own quoting, within the shell's
    options = (
        "StrictHostKeyChecking=yes",
        f'UserKnownHostsFile="{file}"',
        "GlobalKnownHostsFile=/dev/null",
        f"HostKeyAlias={uid}",
        "IdentitiesOnly=yes",
    )
    return shlex.join(argument for option in options for argument in ("-o", option))
