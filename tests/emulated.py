"""Deployments on emulated clouds, and what is asked of those clouds behind their back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from emulation.running import Running, Unavailable

from .deployment import Deployment
from .waiting import wait_until


@dataclass
class EmulatedDeployment(Deployment):
    """Several may share a state folder, one after another: its envelope costs seconds to make."""

    emulation: Running = field(kw_only=True)

    def instances(self) -> list[str]:
        """The instance ids of those that are not gone."""
        raise NotImplementedError

    def terminate(self, instance_id: str) -> None:
        """As if by somebody else."""
        raise NotImplementedError

    def clean(self) -> None:
        """Without its envelope, which the next may use."""
        self.kill()
        if not (self.instances() or self.waves()):
            return
        self.emulation.clear()
        for instance_id in self.instances():
            self.terminate(instance_id)
        wait_until(lambda: not self.instances(), 60)
        for folder in self.waves():
            shutil.rmtree(folder)
        for file in self.state.glob("ledger.sqlite3*"):
            file.unlink()


@contextmanager
def emulated(start: Callable[[], Any], image: str) -> Iterator[Any]:
    """The emulation that `start` gives, with `image`; skips where none can run."""
    try:
        emulation = start()
    except Unavailable as error:
        pytest.skip(str(error))
    try:
        emulation.register_image(image)
        yield emulation
    finally:
        emulation.stop()
