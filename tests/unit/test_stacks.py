"""The stacks of a deployment hold each other up no longer than they must."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tango_cloud.core.errors import TerraformError
from tango_cloud.core.model import MachineRequest
from tango_cloud.core.settings import Settings
from tango_cloud.orchestration import stacks as module
from tango_cloud.orchestration.inventory import Inventory
from tango_cloud.orchestration.site import Site, Sites
from tango_cloud.orchestration.stacks import Stacks, WaveReport
from tango_cloud.terraform.runner import Controls, Result

from .conftest import KEY, SHAPE
from .fakes import FakeCloud

LONG = 10.0


class Modules:
    """Workspaces in Terraform's place: an envelope of `slow` is applied once it may be."""

    def __init__(self) -> None:
        self.applied: list[str] = []
        self.begun, self.may = threading.Event(), threading.Event()

    def open(self, provider: str, kind: str, environment: Mapping[str, str]) -> Any:
        return Module(self, provider, kind)


class Module:
    remote = False

    def __init__(self, modules: Modules, provider: str, kind: str) -> None:
        self._modules, self._provider, self._kind = modules, provider, kind

    def apply(
        self,
        stack: Path,
        inputs: Mapping[str, object],
        *_: object,
        controls: Controls,
        **__: object,
    ) -> Result:
        stack.mkdir(parents=True, exist_ok=True)
        (stack / "inputs.tfvars.json").write_text(json.dumps(dict(inputs)))
        if (self._provider, self._kind) == ("slow", "envelope"):
            self._modules.begun.set()
            while not self._modules.may.wait(0.01):
                if controls.cancelled is not None and controls.cancelled():
                    raise TerraformError(["apply"], 1, "", ["cancelled"])
        self._modules.applied.append(f"{self._provider}/{self._kind}")
        return Result("", outputs={"envelope": {}, "machines": {}})

    def discard(self, stack: Path) -> None:
        """There is nothing."""


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Modules:
    modules = Modules()
    monkeypatch.setattr(module, "Workspaces", lambda *_, **__: modules)
    monkeypatch.setattr(module, "resolve", lambda _: None)
    return modules


@pytest.fixture
def stacks(modules: Modules, tmp_path: Path) -> Stacks:
    clouds = [FakeCloud("slow"), FakeCloud("quick")]
    sites = Sites({one.name: Site(one, Inventory(one, "prod")) for one in clouds})
    return Stacks(Settings(state_dir=tmp_path), tmp_path, sites)


def create(stacks: Stacks, provider: str, wave: str) -> WaveReport:
    offer = FakeCloud(provider).offers(SHAPE)[0]
    request = MachineRequest("uid", KEY, SHAPE, offer, {}, dt.datetime.now(dt.UTC), "")
    return stacks.apply(
        provider, wave, [request], on_created=lambda _: None, on_start=lambda _: None
    )


def test_a_cloud_whose_envelope_takes_long_holds_up_no_other(
    stacks: Stacks, modules: Modules
) -> None:
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(create, stacks, "slow", "wave1")
        assert modules.begun.wait(LONG)
        pool.submit(create, stacks, "quick", "wave2").result(LONG)
        pool.submit(stacks.discard, "slow", "wave0").result(LONG)
        assert modules.applied == ["quick/envelope", "quick/wave"]
        modules.may.set()
        assert slow.result(LONG).failure is None
    assert modules.applied[2:] == ["slow/envelope", "slow/wave"]


def test_halted_applies_end_and_none_begins_until_it_is_over(
    stacks: Stacks, modules: Modules
) -> None:
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(create, stacks, "slow", "wave1")
        assert modules.begun.wait(LONG)
        stacks.halt()
        assert going.result(LONG).interrupted
    modules.may.set()
    assert create(stacks, "quick", "wave2").interrupted
    assert modules.applied == ["quick/envelope"]
    stacks.resume()
    assert not create(stacks, "slow", "wave3").interrupted
    assert modules.applied[-1] == "slow/wave"
