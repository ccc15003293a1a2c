"""An emulated EC2 in a process of its own, for tests and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from emulation.backend import Choice
from emulation.faults import Fault
from emulation.running import Running, Unavailable, why_not

__all__ = ["Emulation", "Fault", "Unavailable", "why_not"]


@dataclass(kw_only=True)
class Emulation(Running):
    """`endpoint` is the proxy's, `backend_endpoint` goes past it."""

    backend: str
    backend_endpoint: str

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        backend: Choice = "auto",
        network: str | None = None,
        loopback: bool = False,
    ) -> Emulation:
        """Returns when it answers; logs go to `folder`. `loopback`: hosts as they are without root.

        Raises Unavailable.
        """
        options = ["--backend", backend, *(["--network", network] if network else [])]
        return cls.run(folder, "emulation", options, loopback=loopback)

    def client(self, service: str = "ec2") -> Any:
        """A client past the proxy: what it does meets no fault and is not counted."""
        session: Any = boto3.Session()
        return session.client(
            service,
            endpoint_url=self.backend_endpoint,
            region_name=self.environment["AWS_REGION"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def register_image(self, name: str, *, architecture: str = "x86_64") -> str:
        """An image of this account with that name; its id."""
        made = self.client().register_image(
            Name=name, Architecture=architecture, RootDeviceName="/dev/sda1"
        )
        return str(made["ImageId"])
