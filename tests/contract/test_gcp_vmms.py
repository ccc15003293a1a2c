"""The VMMS contract on an emulated Compute Engine with real machines."""

from __future__ import annotations

import pytest

from ..gcp import IMAGE, GcpDeployment
from .vmms_contract import Site, VmmsContract


class TestGcpVmms(VmmsContract):
    @pytest.fixture
    def site(self, gcp: GcpDeployment) -> Site:
        return Site(gcp, IMAGE, gcp.terminate)
