"""A full disk under the state folder: told, and nothing is lost or left."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ..chaos.invariants import assert_agreed, reconcile
from ..deployment import Deployment, leaving_nothing, make_deployment
from ..small_disk import small_disk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="making a small disk takes root")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Deployment]:
    """Its state is on a disk of its own."""
    deployment = make_deployment(tmp_path)
    deployment.state.mkdir()
    with small_disk(deployment.state, "100m"), leaving_nothing(deployment):
        yield deployment


@pytest.mark.parametrize(
    ("free", "status", "said"),
    [
        pytest.param(0, 2, "cannot open the ledger", id="nothing is free"),
        pytest.param(40_000, 3, "disk is full|No space left", id="a little is free"),
    ],
)
def test_a_run_says_so_and_the_next_pass_finds_all(
    small: Deployment, free: int, status: int, said: str
) -> None:
    job = small.job("job", "all:\n\t@echo ran\n")
    assert small.run("run", job).returncode == 0
    filler = small.state / "filler"
    _fill(filler, free)
    failed = small.run("run", job)
    assert failed.returncode == status, failed.stderr
    assert "Traceback" not in failed.stderr
    assert re.search(said, failed.stderr), failed.stderr
    filler.unlink()
    reconcile(small)
    assert assert_agreed(small) == []
    assert small.run("run", job).returncode == 0


def _fill(filler: Path, free: int) -> None:
    with filler.open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(bytes(4096)):
                pass
        file.truncate(max(0, file.tell() - free))
