"""The VMMS contract on an emulated EC2 with real machines, by each transport."""

from __future__ import annotations

import pytest

from ..aws import IMAGE, AwsDeployment
from .vmms_contract import BY_ANSIBLE, Site, VmmsContract, by_ansible


class TestAwsVmms(VmmsContract):
    @pytest.fixture
    def site(self, aws: AwsDeployment) -> Site:
        return Site(aws, IMAGE, aws.terminate)


@by_ansible
class TestAwsVmmsByAnsible(VmmsContract):
    """Where machines have systems of their own, their agent becomes root by sudo."""

    @pytest.fixture
    def site(self, aws: AwsDeployment) -> Site:
        aws.environment |= BY_ANSIBLE
        return Site(aws, IMAGE, aws.terminate)
