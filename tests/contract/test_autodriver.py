"""The command `autodriver`, as Tango calls it: options, exit statuses and output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tango_cloud.machine import bundle
from tango_cloud.machine.output import ELISION

from . import servers
from .jobs import recipe


class Tango:
    """One who has put a job into a directory, and calls `autodriver`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "autodriver"
        self.program.write_bytes(bundle.autodriver())
        servers.write_facts(folder, job_user=servers.job_user())

    def call(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        argv = [sys.executable, "-I", "-S", str(self.program), *words]
        environment = {**os.environ, "TANGO_CLOUD_MACHINE": str(self.folder / "machine.json")}
        return subprocess.run(argv, cwd=self.folder, env=environment, capture_output=True)

    def run(self, *lines: str, options: str = "") -> tuple[int, bytes, bytes]:
        """The exit status, the header line, and the rest of the output."""
        job = self.folder / "autolab"
        (job / "empty").mkdir(parents=True)
        (job / "deep").mkdir()
        (job / "deep" / ("long" * 40)).write_text("content")
        (job / "Makefile").write_text(recipe(*lines))
        done = self.call(*options.split(), "autolab")
        assert not job.exists()
        header, _, output = done.stdout.partition(b"\n")
        return done.returncode, header, output


@pytest.fixture
def tango() -> Iterator[Tango]:
    with servers.folder(None) as folder:
        yield Tango(folder)


def test_a_job_that_ends(tango: Tango) -> None:
    options = "-u 100 -f 1000000 -t 20 -o 1000 -z UTC -i 0"
    said = tango.run("cat deep/long*; test -d empty", "exit 7", options=options)
    assert said[:2] == (0, b"Autodriver: Job exited with status 2")
    assert said[2].startswith(b"content")


def test_a_job_whose_time_is_up(tango: Tango) -> None:
    said = tango.run("echo begun; sleep 60", options="--timeout=1")
    assert said[:2] == (2, b"Autodriver: Job timed out after 1 seconds")
    assert said[2].startswith(b"begun\n")


def test_output_that_is_too_long_loses_its_middle(tango: Tango) -> None:
    said = tango.run("printf '%01000d' 0", options="-o 100")
    assert said == (0, b"Autodriver: Job exited with status 0", b"0" * 50 + ELISION + b"0" * 50)


@pytest.mark.parametrize("words", [(), ("-u", "x", "autolab"), ("-t", "-1", "autolab"), ("a", "b")])
def test_a_call_that_makes_no_sense(tango: Tango, words: tuple[str, ...]) -> None:
    done = tango.call(*words)
    assert done.returncode == 1
    assert done.stderr.startswith(b"usage: autodriver ")


def test_a_directory_that_is_not_there(tango: Tango) -> None:
    done = tango.call("absent")
    assert done.returncode == 3
    assert done.stdout.startswith(b"Autodriver: ")


def test_a_machine_that_cannot_run_it(tango: Tango) -> None:
    (tango.folder / "machine.json").write_text(json.dumps({"work_dir": "relative"}))
    done = tango.call("absent")
    assert (done.returncode, b"absolute path" in done.stdout) == (3, True)


def test_the_same_sources_make_the_same_file() -> None:
    once = bundle.autodriver()
    bundle.autodriver.cache_clear()
    assert bundle.autodriver() == once
