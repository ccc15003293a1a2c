"""What a machine is told at first boot, in cloud-init's form, the same for every cloud that has it.

Written as JSON, which is YAML: no value needs quoting. The scripts and units in `first_boot` travel
in it. Of the driver nothing does: it comes over the connection.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files

from tango_cloud.core.errors import ConfigurationError, Fault
from tango_cloud.providers.protocol import Bootstrap

LOGIN = "tango"
"""The account that we log in with; it becomes root by `sudo -n`."""
JOB_USER = "autograde"
"""The account of the jobs, as in Tango's images; made where it is not there. See boot.sh."""

_LIBRARY = "/usr/local/lib/tango-cloud"
_ETC = "/etc/tango-cloud"
_UNITS = "/etc/systemd/system"
_OWN_KEY: Mapping[str, object] = {
    "ssh_genkeytypes": ["ed25519"],
    # Where the cloud has a place for it: Compute Engine's guest attributes.
    "ssh_publish_hostkeys": {"enabled": True},
}
_PROGRAMS = ("host-key", "boot", "first-boot")
_UNIT_FILES = (
    "tango-cloud-boot.service",
    "tango-cloud-expiry.service",
    "tango-cloud-expiry.timer",
)


def user_data(bootstrap: Bootstrap, *, limit: int, own_host_key: bool = False) -> str:
    """The user data of one machine. Secret, unless the machine makes its `own_host_key`: it holds
    the first one else.

    Raises ConfigurationError when it is longer than the cloud's `limit`, in bytes.
    """
    text = "#cloud-config\n" + json.dumps(configuration(bootstrap, own_host_key=own_host_key))
    if len(text) > limit:  # ASCII: a character is a byte
        raise ConfigurationError(
            [Fault("user data", f"{len(text)} bytes are too many", f"at most {limit}")]
        )
    return text


def configuration(bootstrap: Bootstrap, *, own_host_key: bool) -> Mapping[str, object]:
    """cloud-init's modules that have to do something, each with its argument."""
    return {
        "ssh_deletekeys": True,
        **(_OWN_KEY if own_host_key else _given_key(bootstrap)),
        "disable_root": True,
        "ssh_pwauth": False,
        "users": [
            {
                "name": LOGIN,
                "shell": "/bin/sh",
                "lock_passwd": True,
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": [key.strip() for key in bootstrap.authorized_keys],
            },
            {"name": JOB_USER, "shell": "/bin/sh", "lock_passwd": True},
        ],
        "write_files": _files(bootstrap, own_host_key=own_host_key),
        "runcmd": [[f"{_LIBRARY}/first-boot"]],
    }


def _given_key(bootstrap: Bootstrap) -> Mapping[str, object]:
    return {
        "ssh_genkeytypes": [],
        "ssh_keys": {
            "ed25519_private": bootstrap.host_private_key.strip() + "\n",
            "ed25519_public": bootstrap.host_public_key.strip() + "\n",
        },
    }


def _files(bootstrap: Bootstrap, *, own_host_key: bool) -> Sequence[Mapping[str, str]]:
    expires = bootstrap.expires.astimezone(dt.UTC)
    programs = {f"{_LIBRARY}/{name}": _content(f"{name}.sh") for name in _PROGRAMS}
    units = {f"{_UNITS}/{name}": _content(name) for name in _UNIT_FILES}
    timer = f"{_UNITS}/tango-cloud-expiry.timer"
    units[timer] = units[timer].replace("@EXPIRES@", f"{expires:%Y-%m-%d %H:%M:%S} UTC")
    plain = {
        **units,
        # Else systemd-networkd removes the rule that keeps jobs from the metadata service.
        "/etc/systemd/networkd.conf.d/tango-cloud.conf": _content("networkd.conf"),
        f"{_ETC}/machine.json": json.dumps(_facts()) + "\n",
        f"{_ETC}/expires": f"{int(expires.timestamp())}\n",
        # No other machine has it: what an image brings along from another one is told by it.
        f"{_ETC}/first-key.pub": bootstrap.host_public_key.strip() + "\n",
    }
    if not own_host_key:
        # Its presence says that the host key is still the one that we gave.
        plain[f"{_ETC}/bootstrap"] = ""
    return [
        *({"path": p, "permissions": "0755", "content": text} for p, text in programs.items()),
        *({"path": p, "permissions": "0644", "content": text} for p, text in plain.items()),
    ]


def _facts() -> Mapping[str, object]:
    """See machine/facts.py."""
    return {
        "work_dir": "/var/lib/tango-cloud",
        "job_user": JOB_USER,
        "host_key": {verb: [f"{_LIBRARY}/host-key", verb] for verb in ("stage", "activate")},
    }


@functools.cache
def _content(name: str) -> str:
    return (files("tango_cloud.providers") / "first_boot" / name).read_text(encoding="utf-8")
