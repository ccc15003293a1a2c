"""The VMMS contract on an emulated EC2 with real machines."""

from __future__ import annotations

import pytest

from ..aws import IMAGE, AwsDeployment
from .vmms_contract import Site, VmmsContract


class TestAwsVmms(VmmsContract):
    @pytest.fixture
    def site(self, aws: AwsDeployment) -> Site:
        return Site(aws, IMAGE, aws.terminate)
