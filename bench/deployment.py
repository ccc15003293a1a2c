"""Deployments to measure in: the local cloud, in a state folder that is gone afterwards."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tango_cloud.core.errors import ConfigurationError
from tango_cloud.core.settings import ENV_PREFIX, Settings, load
from tango_cloud.orchestration.fleet import Fleet
from tango_cloud.providers.local_host import examine
from tango_cloud.wiring import build_deployment

PREFIX = "bench"
READY_SECONDS = 600.0
GONE_SECONDS = 300.0


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
    """Settings for local machines of `kind`. See `in_force`."""
    ours = {
        "TANGO_CLOUD_PROVIDER": "local",
        "TANGO_CLOUD_LOCAL__SERVER": kind.server,
        "TANGO_CLOUD_LOCAL__ISOLATE": kind.isolate,
    }
    with in_force(ours) as settings:
        yield settings


@contextmanager
def in_force(environment: Mapping[str, str]) -> Iterator[Settings]:
    """These variables, a state folder of their own and no other setting, for whoever loads settings
    inside the block.

    They are put into the environment because the VMMS takes none from its caller.
    """
    kept = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="tango-bench-") as folder:
        # A file that is named keeps the user's own from being found.
        empty = Path(folder) / "empty.toml"
        empty.touch()
        for name in kept:
            if name.startswith((ENV_PREFIX, "AWS_")):
                del os.environ[name]
        os.environ.update(environment)
        os.environ[f"{ENV_PREFIX}PREFIX"] = PREFIX
        os.environ[f"{ENV_PREFIX}STATE_DIR"] = folder
        os.environ[f"{ENV_PREFIX}CONFIG"] = str(empty)
        try:
            yield load()
        finally:
            os.environ.clear()
            os.environ.update(kept)


@contextmanager
def fleet_of(settings: Settings) -> Iterator[Fleet]:
    """The fleet; at the end every machine of the deployment is removed, whoever made it."""
    fleet = build_deployment(settings).fleet
    try:
        yield fleet
    finally:
        for entry in fleet.entries():
            fleet.destroy(entry.key)
        for entry in fleet.entries():
            fleet.destroy_and_wait(entry.key, GONE_SECONDS)
        fleet.close()
