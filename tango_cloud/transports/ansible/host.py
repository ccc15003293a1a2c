"""One machine as Ansible sees it: how OpenSSH reaches and verifies it."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tango_cloud.core.model import Endpoint

NAME = "machine"
"""What OpenSSH knows it by, and an inventory of it alone."""
PYTHON = "/usr/bin/python3"
"""Named, so that no task has to look for one first."""

_IDLE_SECONDS = 60
"""How long OpenSSH holds a connection that nobody uses; also when we are killed."""
_ALIVE_SECONDS = 5
_ALIVE_COUNT = 2


class Host:
    """Holds a private folder until `close`: known hosts and OpenSSH's control socket.

    `variables` are its own in an inventory.
    """

    def __init__(self, endpoint: Endpoint, connect_seconds: float) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="tango-cloud-", ignore_cleanup_errors=True
        )
        self.folder = Path(self._folder.name)
        known = self.folder / "known_hosts"
        known.write_text("".join(f"{NAME} {key}\n" for key in endpoint.host_keys))
        self.variables: Mapping[str, object] = {
            "ansible_host": endpoint.address,
            "ansible_port": endpoint.port,
            "ansible_user": endpoint.username,
            "ansible_become": endpoint.sudo,
            "ansible_python_interpreter": PYTHON,
            "ansible_ssh_private_key_file": endpoint.client_key_file,
            "ansible_ssh_timeout": max(1, int(connect_seconds)),
            "ansible_ssh_args": shlex.join(self._words(endpoint)),
        }

    def _words(self, endpoint: Endpoint) -> list[str]:
        """For OpenSSH: a verified host key, our own client key, and nothing of the user's."""
        options = {
            "BatchMode": "yes",
            "ControlMaster": "auto",
            "ControlPath": str(self.folder / "connection"),
            "ControlPersist": str(_IDLE_SECONDS),
            "GlobalKnownHostsFile": "none",
            "HostKeyAlgorithms": ",".join(_algorithms(endpoint)),
            "HostKeyAlias": NAME,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "PreferredAuthentications": "publickey",
            "ServerAliveCountMax": str(_ALIVE_COUNT),
            "ServerAliveInterval": str(_ALIVE_SECONDS),
            "StrictHostKeyChecking": "yes",
            "UpdateHostKeys": "no",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
        }
        pairs = [word for pair in options.items() for word in ("-o", "=".join(pair))]
        return ["-F", "none", *pairs]

    def close(self) -> None:
        """End the connection and remove the folder. Idempotent."""
        path = self.folder / "connection"
        if path.exists():
            subprocess.run(
                ["ssh", "-F", "none", "-o", f"ControlPath={path}", "-O", "exit", NAME],  # noqa: S607
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        self._folder.cleanup()


def _algorithms(endpoint: Endpoint) -> list[str]:
    """The kinds of host keys that we can verify, and no others, are asked for."""
    kinds: list[str] = []
    for key in endpoint.host_keys:
        kind = key.split()[0]
        kinds += ("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,)
    return list(dict.fromkeys(kinds))
