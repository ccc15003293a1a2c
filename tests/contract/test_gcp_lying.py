"""What an emulated Compute Engine that lies does not do to us."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ..compute.client import Fault
from ..gcp import REGIONS, GcpDeployment
from .lying import Lies, LyingCloud


@dataclass
class GcpLies(Lies):
    deployment: GcpDeployment
    fault = Fault
    listing = "instances.aggregatedList"
    creation = "instances.insert"
    removal = "instances.delete"
    failure = "backendError"

    def go_away(self) -> None:
        self.order("unreachable", "*", region=REGIONS[0])


@pytest.fixture
def lies(gcp: GcpDeployment) -> GcpLies:
    return GcpLies(gcp)


class TestGcpLying(LyingCloud):
    pass
