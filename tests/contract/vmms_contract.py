"""What Tango's callers rely on, on real machines. Every provider inherits this suite.

A provider's test module derives from `VmmsContract` and gives the fixture `site`.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tango_cloud import TangoCloud

from ..deployment import Deployment
from ..small_disk import small_disk

TRUE = "all:\n\t@echo ran\n"
READY_SECONDS = 120
BY_ANSIBLE = {"TANGO_CLOUD_TRANSPORT": "ansible"}

Run = Callable[..., tuple[int, bytes]]


@dataclass
class Site:
    """A deployment at the provider under test. `kill` makes a machine vanish from the cloud behind
    our back.
    """

    deployment: Deployment
    image: str
    kill: Callable[[str], None]


class VM(SimpleNamespace):
    """A TangoMachine, as far as Tango fills it in. It pickles, as Tango's does."""

    def __init__(self, site: Site | None = None, number: int = 1000, **more: object) -> None:
        if site is None:
            return  # being unpickled
        fields: dict[str, object] = {
            "id": number, "image": site.image, "name": Path(site.image).stem, "vmms": "tangoCloud",
            "cores": None, "memory": None, "disk": None, "network": None, "resume": None,
            "domain_name": None, "instance_id": None, "ec2_id": None,
        }  # fmt: skip
        super().__init__(**(fields | more))


def by_ansible(suite: type[VmmsContract]) -> type[VmmsContract]:
    """Mark a suite that goes by that transport: each call starts Ansible."""
    ssh = pytest.mark.skipif(
        shutil.which("ssh") is None, reason="OpenSSH's client is not installed"
    )
    return pytest.mark.slow(ssh(suite))


class VmmsContract:
    @pytest.fixture
    def vmms(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[TangoCloud]:
        for name, value in site.deployment.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(site.deployment.folder)
        vmms = TangoCloud()
        yield vmms
        for vm in vmms.getVMs():
            vmms.safeDestroyVM(vm)
        vmms._fleet.close()

    @pytest.fixture
    def run(self, vmms: TangoCloud, site: Site) -> Run:
        """Copy in, run, copy out: the answer of runJob, and the output."""

        def run(vm: VM, makefile: str, timeout: float = 30, limit: int = 100_000) -> Any:
            output = site.deployment.folder / f"output-{vm.id}"
            assert vmms.copyIn(vm, files(site, {"Makefile": makefile})) == 0
            answer = vmms.runJob(vm, timeout, limit, False)
            if answer in (0, 2):
                assert vmms.copyOut(vm, str(output)) == 0
            return answer, output.read_bytes() if output.exists() else b""

        return run

    def test_a_job_from_start_to_end(self, vmms: TangoCloud, site: Site, run: Run) -> None:
        vm = VM(site)
        ready(vmms, vm)
        assert run(vm, TRUE) == (0, b"Autodriver: Job exited with status 0\nran\n")
        assert [listed.name for listed in vmms.getVMs()] == [vmms.instanceName(1000, vm.name)]
        vmms.safeDestroyVM(vm)
        assert vmms.getVMs() == []

    def test_job_after_job_on_one_machine(
        self, vmms: TangoCloud, site: Site, run: Run, subtests: pytest.Subtests
    ) -> None:
        """Making it is what takes time."""
        vm = VM(site)
        for check in (
            the_machine_is_used_again_and_finds_nothing_of_the_last_job,
            statuses_are_told_as_the_worker_reads_them,
            files_that_would_escape_are_refused_and_the_machine_stays_good,
            odd_names_arrive,
            a_failed_copy_in_never_runs_the_last_jobs_files,
            a_full_disk_on_this_side_fails_copy_out_and_nothing_else,
        ):
            with subtests.test(check.__name__):
                ready(vmms, vm)
                check(vmms, site, run, vm)

    def test_partial_output_is_readable_while_the_job_runs(
        self, vmms: TangoCloud, site: Site
    ) -> None:
        vm = VM(site)
        ready(vmms, vm)
        job, mark = site.deployment.sleeper("slow", before="@echo so far")
        assert vmms.copyIn(vm, directory(job)) == 0
        answers: list[int] = []
        worker = threading.Thread(target=lambda: answers.append(vmms.runJob(vm, 60, 1000)))
        worker.start()
        site.deployment.wait_until_running(mark)
        reader = site.deployment.python(_READER, json.dumps(vars(vm)))
        assert reader.communicate(timeout=60)[0] == "so far\n"
        started = time.monotonic()
        vmms.destroyVM(copy.deepcopy(vm))
        worker.join(30)
        assert answers == [-1], "its job's answer must come, and be 'could not be talked to'"
        assert time.monotonic() - started < 15
        vmms.safeDestroyVM(vm)

    def test_a_machine_killed_under_its_job_answers_minus_one_and_is_made_again(
        self, vmms: TangoCloud, site: Site, run: Run
    ) -> None:
        vm = VM(site)
        ready(vmms, vm)
        old = vm.instance_id
        job, mark = site.deployment.sleeper("slow")
        assert vmms.copyIn(vm, directory(job)) == 0
        answers: list[int] = []
        worker = threading.Thread(target=lambda: answers.append(vmms.runJob(vm, 60, 1000)))
        worker.start()
        site.deployment.wait_until_running(mark)
        site.kill(old)
        worker.join(30)
        assert answers == [-1]
        assert vmms.waitVM(vm, READY_SECONDS) == 0
        assert vm.instance_id != old
        assert run(vm, TRUE)[0] == 0

    def test_two_processes_share_a_machine_by_its_identity_alone(self, site: Site) -> None:
        """As Tango does it: the REST server initialises, the job manager does the rest."""
        vm = json.dumps(vars(VM(site)))
        first = site.deployment.python(_INITIALISER, vm)
        second = site.deployment.python(_WORKER, vm)
        assert first.communicate(timeout=READY_SECONDS)[0] == "0\n"
        told = second.communicate(timeout=READY_SECONDS)[0].splitlines()
        assert told == ["0", "0", "0", "0", "Autodriver: Job exited with status 0", "ran", "0"]

    def test_many_threads_at_once(self, vmms: TangoCloud, site: Site, run: Run) -> None:
        def whole_life(number: int) -> tuple[int, bytes]:
            vm = VM(site, number)
            ready(vmms, vm)
            result: tuple[int, bytes] = run(vm, f"all:\n\t@echo {number}\n")
            vmms.safeDestroyVM(pickle.loads(pickle.dumps(vm)))
            return result

        numbers = range(2000, 2012)
        with ThreadPoolExecutor(len(numbers)) as pool:
            results = dict(zip(numbers, pool.map(whole_life, numbers), strict=True))
        assert {n: output.splitlines()[-1] for n, (_, output) in results.items()} == {
            n: str(n).encode() for n in numbers
        }
        assert vmms.getVMs() == []

    def test_a_prefix_that_begins_another_is_another(
        self, vmms: TangoCloud, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prefix = site.deployment.environment.get("TANGO_CLOUD_PREFIX", "tango")
        vm = VM(site)
        ready(vmms, vm)
        monkeypatch.setenv("TANGO_CLOUD_PREFIX", f"{prefix}-2")
        other = TangoCloud()
        ready(other, VM(site))
        assert [listed.name for listed in vmms.getVMs()] == [f"{prefix}-1000-{vm.name}"]
        for listed in other.getVMs():
            other.safeDestroyVM(listed)
        assert other.getVMs() == []
        assert vmms.existsVM(vm)
        other._fleet.close()

    def test_destroying_what_is_not_there_is_quiet_and_quick(
        self, vmms: TangoCloud, site: Site, caplog: pytest.LogCaptureFixture
    ) -> None:
        vm = VM(site)
        vmms.destroyVM(vm)
        vmms.safeDestroyVM(vm)
        assert not caplog.records

    def test_a_machine_still_being_made_can_be_destroyed(
        self, vmms: TangoCloud, site: Site
    ) -> None:
        for number in range(3000, 3004):
            assert vmms.initializeVM(VM(site, number)) == 0
        for number in range(3000, 3004):
            vmms.safeDestroyVM(VM(site, number))
        assert vmms.getVMs() == []

    def test_an_image_that_is_not_there_is_minus_one(self, vmms: TangoCloud, site: Site) -> None:
        assert site.image in vmms.getImages()
        assert vmms.initializeVM(VM(site, image="nope.img")) == -1


def the_machine_is_used_again_and_finds_nothing_of_the_last_job(
    vmms: TangoCloud, site: Site, run: Run, vm: VM
) -> None:
    run(vm, "all:\n\techo secret > left; echo secret > /tmp/left; sleep 300 & true\n")
    assert vmms.waitVM(vm, READY_SECONDS) == 0
    _, output = run(vm, "all:\n\t@ls -A . /tmp; ps ax 2>/dev/null | grep -c '[s]leep 300'\n")
    assert b"left" not in output


def statuses_are_told_as_the_worker_reads_them(
    vmms: TangoCloud, site: Site, run: Run, vm: VM
) -> None:
    answer, output = run(vm, "all:\n\tkill -9 $$PPID\n")
    assert (answer, output.splitlines()[0]) == (0, b"Autodriver: Job exited with status 137")
    answer, output = run(vm, "all:\n\tsleep 60\n", timeout=1)
    assert (answer, output.splitlines()[0]) == (2, b"Autodriver: Job timed out after 1 seconds")
    answer, output = run(vm, "all:\n\t@head -c 1000000 /dev/zero | tr '\\0' x\n", limit=1000)
    assert answer == 0
    assert b"excess bytes elided" in output
    assert len(output) < 1200


def files_that_would_escape_are_refused_and_the_machine_stays_good(
    vmms: TangoCloud, site: Site, run: Run, vm: VM
) -> None:
    for name in ("../x", "/etc/x", "a/../../x", "a\0b"):
        assert vmms.copyIn(vm, files(site, {name: "x"})) != 0
    assert vmms.copyIn(vm, [SimpleNamespace(localFile="/does/not/exist", destFile="x")]) != 0
    assert run(vm, TRUE)[0] == 0


def odd_names_arrive(vmms: TangoCloud, site: Site, run: Run, vm: VM) -> None:
    names = ["with space", "new\nline", "ünïcode-日本", "-dash", "deep/er/file", "Makefile"]
    contents = dict.fromkeys(names, "all:\n\t@find . -type f | wc -l; cat deep/er/file\n")
    assert vmms.copyIn(vm, files(site, contents | {"deep/er/file": "found\n"})) == 0
    assert vmms.runJob(vm, 30, 10_000, False) == 0
    output = site.deployment.folder / "output"
    assert vmms.copyOut(vm, str(output)) == 0
    assert output.read_text().splitlines()[1:] == ["7", "found"]


def a_failed_copy_in_never_runs_the_last_jobs_files(
    vmms: TangoCloud, site: Site, run: Run, vm: VM
) -> None:
    """The old generation calls runJob and copyOut after a copyIn that failed."""
    run(vm, "all:\n\t@echo the first job\n")
    assert vmms.copyIn(vm, [SimpleNamespace(localFile="/gone", destFile="x")]) != 0
    vmms.runJob(vm, 30, 10_000, False)
    output = site.deployment.folder / "stale"
    vmms.copyOut(vm, str(output))
    assert not output.exists() or b"the first job" not in output.read_bytes()


def a_full_disk_on_this_side_fails_copy_out_and_nothing_else(
    vmms: TangoCloud, site: Site, run: Run, vm: VM
) -> None:
    if os.geteuid() != 0:
        pytest.skip("making a small disk takes root")
    full = site.deployment.folder / "full"
    full.mkdir()
    with small_disk(full, "16k"):
        run(vm, "all:\n\t@head -c 50000 /dev/zero\n")
        (full / "output").write_text("what was there before")
        assert vmms.copyOut(vm, str(full / "output")) == -1
        assert (full / "output").read_text() == "what was there before"
        assert [path.name for path in full.iterdir()] == ["output"]
    assert vmms.copyOut(vm, str(site.deployment.folder / "no" / "such" / "folder")) == -1
    assert vmms.copyOut(vm, str(site.deployment.folder / "output")) == 0


def ready(vmms: TangoCloud, vm: object) -> None:
    assert vmms.initializeVM(vm) == 0
    assert vmms.waitVM(vm, READY_SECONDS) == 0


def files(site: Site, contents: dict[str, str]) -> list[object]:
    """Tango InputFiles with these contents, by destination."""
    made: list[object] = []
    for number, (destination, text) in enumerate(contents.items()):
        path = site.deployment.folder / f"input-{number}-{threading.get_ident()}"
        path.write_text(text)
        made.append(SimpleNamespace(localFile=str(path), destFile=destination))
    return made


def directory(job: str) -> list[object]:
    return [
        SimpleNamespace(localFile=str(path), destFile=path.name) for path in Path(job).iterdir()
    ]


_VM = """
import json, sys, types
from tango_cloud import TangoCloud
vm = types.SimpleNamespace(**json.loads(sys.argv[1]))
vmms = TangoCloud()
"""

_READER = _VM + "print(vmms.getPartialOutput(vm), end='')"

_INITIALISER = _VM + "print(vmms.initializeVM(vm))"

_WORKER = (
    _VM
    + """
import pathlib
pathlib.Path("mk").write_text("all:\\n\\t@echo ran\\n")
print(vmms.waitVM(vm, 60))
print(vmms.copyIn(vm, [types.SimpleNamespace(localFile="mk", destFile="Makefile")]))
print(vmms.runJob(vm, 10, 1000, False))
print(vmms.copyOut(vm, "out"))
print(pathlib.Path("out").read_text(), end="")
vmms.safeDestroyVM(vm)
print(len(vmms.getVMs()))
"""
)
