"""Deployments to measure in: the local cloud, in a state folder that is gone afterwards."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tango_cloud.core.errors import ConfigurationError
from tango_cloud.core.settings import ENV_PREFIX, Settings, load
from tango_cloud.orchestration.fleet import Fleet
from tango_cloud.providers.local_host import examine
from tango_cloud.wiring import build_fleet

PREFIX = "bench"
READY_SECONDS = 120.0
GONE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Kind:
    """How local machines are made: their SSH server, and whether bubblewrap is around it."""

    server: Literal["sshd", "asyncssh"]
    isolate: Literal["yes", "no"]

    def __str__(self) -> str:
        return f"{self.server} in bubblewrap" if self.isolate == "yes" else f"{self.server} alone"

    def obstacle(self) -> str:
        """Why this host cannot have such machines, in words; empty when it can."""
        try:
            examine().choose(self.server, self.isolate)
        except ConfigurationError as error:
            return str(error)
        return ""


ISOLATED = Kind("sshd", "yes")
"""What a host with OpenSSH and bubblewrap installed gets by itself."""
BARE_SSHD = Kind("sshd", "no")
"""The nearest thing here to a machine of a real cloud: nothing stands around its sshd."""
FROM_PIP = Kind("asyncssh", "no")
"""What a host with neither gets by itself."""


@contextmanager
def settings_of(kind: Kind) -> Iterator[Settings]:
    """Settings for machines of `kind`, in force for whoever loads them inside the block.

    They are put into the environment because the VMMS takes none from its caller.
    """
    kept = {name: text for name, text in os.environ.items() if name.startswith(ENV_PREFIX)}
    with tempfile.TemporaryDirectory(prefix="tango-bench-") as folder:
        ours = {
            "PREFIX": PREFIX,
            "PROVIDER": "local",
            "STATE_DIR": folder,
            "LOCAL__SERVER": kind.server,
            "LOCAL__ISOLATE": kind.isolate,
        }
        # A file that is named keeps the user's own from being found.
        empty = Path(folder) / "empty.toml"
        empty.touch()
        for name in kept:
            del os.environ[name]
        os.environ.update({ENV_PREFIX + name: text for name, text in ours.items()})
        os.environ[ENV_PREFIX + "CONFIG"] = str(empty)
        try:
            yield load()
        finally:
            for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
                del os.environ[name]
            os.environ.update(kept)


@contextmanager
def fleet_of(settings: Settings) -> Iterator[Fleet]:
    """The fleet; at the end every machine of the deployment is removed, whoever made it."""
    fleet = build_fleet(settings)
    try:
        yield fleet
    finally:
        for entry in fleet.entries():
            fleet.destroy(entry.key)
        for entry in fleet.entries():
            fleet.destroy_and_wait(entry.key, GONE_SECONDS)
        fleet.close()
