"""A sample of the deaths that `make chaos` tries: one of each kind, on the built-in cloud."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .clouds import local
from .kill import choose
from .report import Outcome, render
from .scene import Death, Scene, scene

DEATHS = (
    "before ledger Machines.request #2",
    "crash process terraform apply #1",
    "after ledger Waves.record_terraform #1",
    "after ssh request stage_host_key #1",
    "before ledger Waves.close #1",
)
MORE = (
    "after ledger Intents.claim #1",
    "before ledger Machines.record #3",
    "after ssh request run #1",
)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("chaos")
    with local(folder) as cloud, scene(cloud, folder) as made:
        made.record()
        yield made


@pytest.mark.parametrize(
    "point", [*DEATHS, *(pytest.param(point, marks=pytest.mark.slow) for point in MORE)]
)
def test_one_pass_puts_everything_right(one: Scene, point: str) -> None:
    assert one.kill(point).died, "the point is not one of a life's any more"


def test_elsewhere_only_what_is_special_there_is_tried() -> None:
    later = [f"before call DescribeInstances #{n}" for n in (1, 2, 3)]
    first = ["before file mkdir terraform #1", "before process terraform init #1", *later]
    assert choose(first, later, elsewhere=True) == [*later[:2], first[1]]
    assert choose(first, later, elsewhere=False) == [*later, *first[:2]]


def test_the_report_counts_what_was_wrong_apart() -> None:
    point = "after ledger Waves.close #1"
    outcomes = [
        Outcome("aws", Death(point, died=True, mended=["abandoned: finish"])),
        Outcome("aws", Death(point, died=False, mended=[])),
        Outcome("aws", Death(point, died=True, mended=[]), wrong="a second pass finds []"),
    ]
    text = render(outcomes)
    assert "| aws | ledger | 3 | 1 | 1 | 1 | 1 |" in text
    assert "- abandoned: finish: 1" in text
    assert f"- aws: {point}: WRONG: a second pass finds []" in text
