"""The VMMS contract on the local provider, with each kind of SSH server, by each transport."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..deployment import leaving_nothing, make_deployment
from .vmms_contract import BY_ANSIBLE, Site, VmmsContract, by_ansible

SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"
KINDS = {
    "sshd": {"TANGO_CLOUD_LOCAL__SERVER": "sshd", "TANGO_CLOUD_LOCAL__ISOLATE": "yes"},
    "asyncssh": {"TANGO_CLOUD_LOCAL__SERVER": "asyncssh", "TANGO_CLOUD_LOCAL__ISOLATE": "no"},
}


@contextmanager
def local_site(kind: str, folder: Path, **more: str) -> Iterator[Site]:
    needed = ("sshd", "bwrap") if kind == "sshd" else ()
    missing = [program for program in needed if shutil.which(program, path=SYSTEM) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    deployment = make_deployment(folder, **KINDS[kind], **more)

    def kill(instance_id: str) -> None:
        instance = folder / "state" / "local" / "instances" / instance_id
        os.killpg(json.loads((instance / "instance.json").read_text())["pid"], signal.SIGKILL)

    with leaving_nothing(deployment):
        yield Site(deployment, "local.img", kill)


class TestLocalVmms(VmmsContract):
    @pytest.fixture(params=KINDS)
    def site(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
        with local_site(request.param, tmp_path) as site:
            yield site


@by_ansible
class TestLocalVmmsByAnsible(VmmsContract):
    @pytest.fixture(params=KINDS)
    def site(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
        with local_site(request.param, tmp_path, **BY_ANSIBLE) as site:
            yield site
