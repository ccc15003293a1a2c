"""A sample of the deaths that `make chaos` tries: one of each kind, on the built-in cloud."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .kill import Scene, scene

DEATHS = (
    "after ledger Machines.request #2",
    "after ledger Intents.claim #1",
    "after process terraform apply #1",
    "after ledger Waves.record_terraform #1",
    "before ledger Machines.record #3",
    "after ssh activate_host_key #1",
    "before ledger Waves.close #1",
)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("chaos")) as made:
        made.record()
        yield made
        made.end()
        made.deployment.assert_nothing_left()


@pytest.mark.parametrize("death", DEATHS)
def test_one_pass_puts_everything_right(one: Scene, death: str) -> None:
    side, _, point = death.partition(" ")
    assert one.kill(side, point).died, "the point is not one of a life's any more"
