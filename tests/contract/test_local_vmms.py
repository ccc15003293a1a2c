"""The VMMS contract on the local provider, with each kind of SSH server."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..deployment import leaving_nothing, make_deployment
from .vmms_contract import Site, VmmsContract

SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"
KINDS = {
    "sshd": {"TANGO_CLOUD_LOCAL__SERVER": "sshd", "TANGO_CLOUD_LOCAL__ISOLATE": "yes"},
    "asyncssh": {"TANGO_CLOUD_LOCAL__SERVER": "asyncssh", "TANGO_CLOUD_LOCAL__ISOLATE": "no"},
}


class TestLocalVmms(VmmsContract):
    @pytest.fixture(params=KINDS)
    def site(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
        needed = ("sshd", "bwrap") if request.param == "sshd" else ()
        missing = [program for program in needed if shutil.which(program, path=SYSTEM) is None]
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)}")
        deployment = make_deployment(tmp_path, **KINDS[request.param])

        def kill(instance_id: str) -> None:
            folder = tmp_path / "state" / "local" / "instances" / instance_id
            os.killpg(json.loads((folder / "instance.json").read_text())["pid"], signal.SIGKILL)

        with leaving_nothing(deployment):
            yield Site(deployment, "local.img", kill)
