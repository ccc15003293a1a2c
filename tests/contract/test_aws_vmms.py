"""The VMMS contract on an emulated EC2 with real machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from emulation.client import Emulation

from ..aws import IMAGE, make_aws_deployment
from .vmms_contract import Site, VmmsContract


class TestAwsVmms(VmmsContract):
    @pytest.fixture
    def site(
        self, emulation: Emulation, aws_state: Path, aws_network: dict[str, str], tmp_path: Path
    ) -> Iterator[Site]:
        deployment = make_aws_deployment(tmp_path, emulation, aws_state, "vmms", **aws_network)
        yield Site(deployment, IMAGE, deployment.terminate)
        deployment.assert_nothing_left()
