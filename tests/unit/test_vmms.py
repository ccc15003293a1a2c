"""The adapter: what Tango's callers rely on, method by method and trap by trap."""

from __future__ import annotations

import copy
import logging
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tango_cloud.core.errors import (
    JobRefused,
    MachineDamaged,
    MachineUnreachable,
    ProviderUnavailable,
    ProvisioningError,
)
from tango_cloud.core.model import MachineKey
from tango_cloud.transports.protocol import RunLimits, RunOutcome
from tango_cloud.vmms import TangoCloud, adapter
from tango_cloud.vmms.translation import input_files, shape_of

from .conftest import Rig, build_rig, deployment_of
from .fakes import OUTCOME, FakeSession


class TangoMachine:
    """As Tango hands it in, of the 2024 generation."""

    def __init__(self, number: int = 1000, name: str = "fake", **more: object) -> None:
        self.id, self.name, self.image = number, name, "fake.img"
        self.vmms, self.network, self.cores, self.memory, self.disk = "ec2", None, None, None, None
        self.domain_name: Any = None
        self.instance_id: Any = None
        self.ec2_id: Any = None
        self.__dict__.update(more)


@pytest.fixture
def vmms(rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TangoCloud:
    return _vmms(rig, monkeypatch, tmp_path)


def _vmms(rig: Rig, monkeypatch: pytest.MonkeyPatch, folder: Path) -> TangoCloud:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TANGO_CLOUD_PREFIX", "prod")
    monkeypatch.setenv("TANGO_CLOUD_PROVIDER", "fake")
    monkeypatch.setenv("TANGO_CLOUD_MACHINE__GONE_SECONDS", "2")
    monkeypatch.setattr(adapter, "build_deployment", lambda _settings: deployment_of(rig))
    return TangoCloud()


def _input(folder: Path, destination: str | None = "Makefile") -> SimpleNamespace:
    path = folder / "input"
    path.write_text("all:\n\ttrue\n")
    return SimpleNamespace(localFile=str(path), destFile=destination)


def _ready(vmms: TangoCloud, vm: object) -> None:
    assert vmms.initializeVM(vm) == 0
    assert vmms.waitVM(vm, 10) == 0


def test_a_job_goes_through(vmms: TangoCloud, tmp_path: Path) -> None:
    vm = TangoMachine()
    _ready(vmms, vm)
    assert vmms.copyIn(vm, [_input(tmp_path)], 17) == 0
    assert vmms.runJob(vm, 10, 1024, False) == 0
    assert vmms.copyOut(vm, str(tmp_path / "out")) == 0
    assert (tmp_path / "out").read_bytes() == b"out"
    assert vmms.getPartialOutput(vm) == "out"
    assert vmms.existsVM(vm)
    vmms.safeDestroyVM(vm)
    assert not vmms.existsVM(vm)
    assert vmms.getVMs() == []


def test_initializing_may_wait_for_the_machine(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TANGO_CLOUD_VMMS__INITIALIZE_WAITS", "true")
    monkeypatch.setenv("TANGO_CLOUD_MACHINE__READY_SECONDS", "1")
    vmms, vm = _vmms(rig, monkeypatch, tmp_path), TangoMachine()
    assert vmms.initializeVM(vm) == 0
    assert vmms.copyIn(vm, [_input(tmp_path)], 1) == 0, "it is ready"
    rig.transport.reachable = lambda _: False
    assert vmms.initializeVM(TangoMachine(1001)) == -1
    assert [machine.id for machine in vmms.getVMs()] == [1000, 1001], "nothing is forgotten"


def test_the_old_generations_three_argument_call_works(vmms: TangoCloud) -> None:
    vm = TangoMachine()
    _ready(vmms, vm)
    assert vmms.runJob(vm, 10, 1024) == 0


def test_the_machine_object_is_filled_and_still_pickles(vmms: TangoCloud) -> None:
    vm = TangoMachine()
    _ready(vmms, vm)
    assert vm.domain_name == "192.0.2.1"
    assert vm.instance_id == vm.ec2_id != ""
    assert pickle.loads(pickle.dumps(vm)).instance_id == vm.instance_id


def test_identity_survives_copies_that_lost_what_was_filled_in(vmms: TangoCloud) -> None:
    vm = TangoMachine()
    pristine = copy.deepcopy(vm)
    _ready(vmms, vm)
    assert vmms.waitVM(pristine, 10) == 0
    vmms.safeDestroyVM(copy.deepcopy(pristine))
    assert not vmms.existsVM(vm)


def test_initialising_twice_is_one_machine(vmms: TangoCloud, rig: Rig) -> None:
    vm = TangoMachine()
    assert [vmms.initializeVM(vm), vmms.initializeVM(vm)] == [0, 0]
    assert vmms.waitVM(vm, 10) == 0
    assert len(rig.cloud.alive) == 1


def test_wait_makes_a_machine_that_nobody_initialised(vmms: TangoCloud) -> None:
    assert vmms.waitVM(TangoMachine(), 10) == 0


def test_wait_makes_a_lost_machine_again(vmms: TangoCloud, rig: Rig) -> None:
    vm = TangoMachine()
    _ready(vmms, vm)
    old = vm.instance_id
    rig.cloud.alive.clear()
    rig.transport.reachable = lambda _: bool(rig.cloud.alive)
    assert vmms.waitVM(vm, 10) == 0
    assert vm.instance_id != old


def test_wait_answers_minus_one_in_time(vmms: TangoCloud, rig: Rig) -> None:
    rig.transport.reachable = lambda _: False
    vm = TangoMachine()
    assert vmms.initializeVM(vm) == 0
    assert vmms.waitVM(vm, 0.2) == -1


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (MachineUnreachable("cut off"), -1),
        (MachineDamaged("a daemon stays"), 3),
        (JobRefused("no network control here"), 1),
        (RuntimeError("a bug of ours"), -1),
    ],
)
def test_run_answers_what_the_worker_acts_on(
    vmms: TangoCloud, rig: Rig, fault: Exception, answer: int
) -> None:
    def run(session: FakeSession, limits: RunLimits) -> RunOutcome:
        raise fault

    vm = TangoMachine()
    _ready(vmms, vm)
    rig.transport.on_run = run
    assert vmms.runJob(vm, 10, 1024) == answer


@pytest.mark.parametrize(
    ("outcome", "answer"), [({"exit_status": 137}, 0), ({"timed_out": True}, 2)]
)
def test_a_failed_job_is_0_and_a_timed_out_one_2(
    vmms: TangoCloud, rig: Rig, outcome: dict[str, object], answer: int
) -> None:
    import dataclasses

    vm = TangoMachine()
    _ready(vmms, vm)
    rig.transport.on_run = lambda *_: dataclasses.replace(OUTCOME, **outcome)  # type: ignore[arg-type]
    assert vmms.runJob(vm, 10, 1024) == answer


def test_a_damaged_machine_fails_its_next_wait(vmms: TangoCloud, rig: Rig) -> None:
    """The old generation uses it again whatever `runJob` answered."""

    def run(session: FakeSession, limits: RunLimits) -> RunOutcome:
        raise MachineDamaged("a daemon stays")

    vm = TangoMachine()
    _ready(vmms, vm)
    rig.transport.on_run = run
    assert vmms.runJob(vm, 10, 1024) == 3
    assert vmms.waitVM(vm, 10) == -1
    vmms.safeDestroyVM(vm)
    assert vmms.waitVM(vm, 10) == 0


def test_a_connection_that_died_between_jobs_is_made_anew(vmms: TangoCloud, rig: Rig) -> None:
    vm = TangoMachine()
    _ready(vmms, vm)
    rig.transport.sessions[0].close()
    assert vmms.copyIn(vm, []) == 0
    rig.transport.sessions[1].close()
    assert vmms.getPartialOutput(vm) == "out"


@pytest.mark.parametrize("seconds", [0, -1, "abc", float("nan"), float("inf")])
def test_a_nonsensical_time_is_an_answer_not_an_exception(vmms: TangoCloud, seconds: float) -> None:
    vm = TangoMachine()
    _ready(vmms, vm)
    assert vmms.runJob(vm, seconds, 1024) == 1
    assert vmms.runJob(vm, 10, seconds) == 1  # type: ignore[arg-type]
    assert vmms.waitVM(vm, seconds) == -1


def test_none_means_the_settings(vmms: TangoCloud, rig: Rig) -> None:
    seen: list[RunLimits] = []

    def run(session: FakeSession, limits: RunLimits) -> RunOutcome:
        seen.append(limits)
        return OUTCOME

    vm = TangoMachine(cores=None, memory=None)
    _ready(vmms, vm)
    rig.transport.on_run = run
    assert vmms.runJob(vm, None, None) == 0
    assert (seen[0].wall_seconds, seen[0].output_bytes) == (300, 10 * 1024 * 1024)


@pytest.mark.parametrize(
    "vm",
    [
        object(),
        None,
        SimpleNamespace(id="abc", name="x"),
        SimpleNamespace(id=1, name=""),
        SimpleNamespace(id=True, name="x"),
        TangoMachine(cores="many"),
        TangoMachine(memory=-5),
    ],
)
def test_no_exception_leaves_the_adapter_whatever_it_is_given(
    vmms: TangoCloud, vm: object, tmp_path: Path
) -> None:
    assert vmms.initializeVM(vm) == -1
    assert vmms.waitVM(vm, 1) == -1
    assert vmms.copyIn(vm, [_input(tmp_path)]) != 0
    assert vmms.runJob(vm, 1, 1) != 0
    assert vmms.copyOut(vm, str(tmp_path / "out")) != 0
    assert vmms.getPartialOutput(vm) == ""
    vmms.destroyVM(vm)
    vmms.safeDestroyVM(vm)
    assert vmms.existsVM(vm) is False


@pytest.mark.parametrize(
    "files",
    [
        [SimpleNamespace(localFile=None, destFile="x")],
        [SimpleNamespace(localFile="x", destFile=7)],
        [object()],
        7,
    ],
)
def test_nonsensical_input_files_are_refused(vmms: TangoCloud, files: list[object]) -> None:
    vm = TangoMachine()
    _ready(vmms, vm)
    assert vmms.copyIn(vm, files) != 0


def test_without_a_destination_the_file_keeps_its_name(tmp_path: Path) -> None:
    assert input_files([_input(tmp_path, None)])[0].destination == "input"


def test_no_cloud_no_exception_except_from_getvms(
    vmms: TangoCloud, rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    vm = TangoMachine()
    _ready(vmms, vm)
    rig.cloud.immortal.add(vm.instance_id)
    rig.cloud.unavailable = True
    with pytest.raises(ProviderUnavailable):
        vmms.getVMs()
    assert vmms.existsVM(TangoMachine(2000)) is True, "absence is never claimed unseen"
    with caplog.at_level(logging.ERROR):
        vmms.safeDestroyVM(vm)
    assert "stays on the books" in caplog.text
    rig.cloud.unavailable = False
    assert [listed.id for listed in vmms.getVMs()] == [1000]


def test_provisioning_failure_is_minus_one_from_wait(vmms: TangoCloud, rig: Rig) -> None:
    rig.cloud.refuse = lambda _: ProvisioningError("no such image")
    vm = TangoMachine()
    assert vmms.initializeVM(vm) == 0
    assert vmms.waitVM(vm, 10) == -1


def test_reset_tango_finds_and_destroys_exactly_its_own(
    vmms: TangoCloud, rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """resetTango destroys each listed machine whose name begins with `<prefix>-`."""
    _ready(vmms, TangoMachine(1000))
    _ready(vmms, TangoMachine(1001, name="with-dash_and.dot"))
    neighbour = build_rig(rig.ledger, rig.cloud, rig.transport, tmp_path, deployment="prod-2")
    key = MachineKey("prod-2", 1000, "fake")
    neighbour.fleet.request(key, shape_of(TangoMachine(), vmms._settings.machine, "MiB"), 60)
    neighbour.fleet.wait(key, 10)
    found = vmms.getVMs()
    assert [vm.name for vm in found] == ["prod-1000-fake", "prod-1001-with-dash_and.dot"]
    assert all(vm.name.startswith("prod-") and vm.image == "fake.img" for vm in found)
    for vm in pickle.loads(pickle.dumps(found)):
        vmms.destroyVM(vm)
        vmms.safeDestroyVM(vm)
    assert vmms.getVMs() == []
    assert [entry.key for entry in neighbour.fleet.entries()] == [key]
    neighbour.fleet.close()


def test_listed_before_they_exist(vmms: TangoCloud, rig: Rig) -> None:
    """A machine on its way must not survive resetTango: it is listed from the moment it is asked
    for."""
    rig.ledger.machines.request(
        MachineKey("prod", 1, "fake"),
        "fake",
        shape_of(TangoMachine(), vmms._settings.machine, "MiB"),
        60,
    )
    assert [vm.id for vm in vmms.getVMs()] == [1]


def test_memory_is_read_in_the_unit_of_the_settings(vmms: TangoCloud) -> None:
    defaults = vmms._settings.machine
    vm = TangoMachine(memory=2_000_000, cores="4")
    assert shape_of(vm, defaults, "KiB").memory_mib == 1954
    assert shape_of(vm, defaults, "MiB").memory_mib == 2_000_000
    assert shape_of(vm, defaults, "MiB").cores == 4


def test_names_and_images(vmms: TangoCloud) -> None:
    assert vmms.instanceName(1000, "rhel") == "prod-1000-rhel"
    assert vmms.getImages() == ["fake.img"]


def test_get_images_answers_none_rather_than_raise(
    vmms: TangoCloud, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> list[str]:
        raise ProviderUnavailable("away")

    monkeypatch.setattr(rig.cloud, "images", away)
    assert vmms.getImages() == []
