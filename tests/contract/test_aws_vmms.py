"""The VMMS contract on an emulated EC2 with real machines, by each transport."""

from __future__ import annotations

import pytest

from tango_cloud import TangoCloud

from ..aws import IMAGE, AwsDeployment
from .vmms_contract import BY_ANSIBLE, Site, VmmsContract, by_ansible


class TestAwsVmms(VmmsContract):
    @pytest.fixture
    def site(self, aws: AwsDeployment) -> Site:
        return Site(aws, IMAGE, aws.terminate)

    @pytest.mark.slow
    def test_a_prefix_that_begins_another_is_another(
        self, vmms: TangoCloud, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        super().test_a_prefix_that_begins_another_is_another(vmms, site, monkeypatch)

    @pytest.mark.slow
    def test_two_processes_share_a_machine_by_its_identity_alone(self, site: Site) -> None:
        super().test_two_processes_share_a_machine_by_its_identity_alone(site)


@by_ansible
class TestAwsVmmsByAnsible(VmmsContract):
    """Where machines have systems of their own, their agent becomes root by sudo."""

    @pytest.fixture
    def site(self, aws: AwsDeployment) -> Site:
        aws.environment |= BY_ANSIBLE
        return Site(aws, IMAGE, aws.terminate)
