"""The VMMS contract on an emulated Compute Engine with real machines, by each transport."""

from __future__ import annotations

import pytest

from ..gcp import IMAGE, GcpDeployment
from .vmms_contract import BY_ANSIBLE, Site, VmmsContract, by_ansible


class TestGcpVmms(VmmsContract):
    @pytest.fixture
    def site(self, gcp: GcpDeployment) -> Site:
        return Site(gcp, IMAGE, gcp.terminate)


@by_ansible
class TestGcpVmmsByAnsible(VmmsContract):
    """Where machines have systems of their own, their agent becomes root by sudo."""

    @pytest.fixture
    def site(self, gcp: GcpDeployment) -> Site:
        gcp.environment |= BY_ANSIBLE
        return Site(gcp, IMAGE, gcp.terminate)
