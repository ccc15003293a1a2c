"""One deployment across several clouds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tango_cloud.core.errors import (
    AuthenticationError,
    CapacityError,
    ProviderUnavailable,
    ProvisioningError,
    TangoCloudError,
)
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import MachineKey

from .conftest import KEY, Rig, build_rig, ready, request, state_of
from .fakes import FakeCloud, FakeTransport


@dataclass
class Clouds:
    rig: Rig
    cheap: FakeCloud
    dear: FakeCloud


@pytest.fixture
def clouds(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clouds]:
    monkeypatch.setattr("tango_cloud.orchestration.offers._FIRST_PAUSE", 0.01)
    cheap, dear = FakeCloud("cheap", 1.0), FakeCloud("dear", 2.0)
    rig = build_rig(ledger, dear, FakeTransport(), tmp_path, others=[cheap])
    yield Clouds(rig, cheap, dear)
    rig.fleet.close()


def test_the_cheapest_cloud_is_asked_first(clouds: Clouds) -> None:
    assert ready(clouds.rig).provider == "cheap"
    assert not clouds.dear.alive


@pytest.mark.parametrize(
    "error", [CapacityError("full"), AuthenticationError("no"), ProvisioningError("broken")]
)
def test_what_one_cloud_refuses_another_makes(clouds: Clouds, error: TangoCloudError) -> None:
    clouds.cheap.refuse = lambda _: error
    machine = ready(clouds.rig)
    assert machine.provider == "dear"
    assert len(clouds.dear.alive) == 1


def test_a_cloud_that_cannot_be_asked_is_passed_over(clouds: Clouds) -> None:
    clouds.cheap.apply_failure = ProviderUnavailable("away")
    assert ready(clouds.rig).provider == "dear"


def test_they_are_listed_together_and_removed_each_where_it_is(clouds: Clouds) -> None:
    rig, other = clouds.rig, MachineKey("prod", 1001, "local")
    first = ready(rig)
    clouds.cheap.refuse = lambda _: CapacityError("full")
    second = ready(rig, other)
    assert [(e.key, e.state) for e in rig.fleet.entries()] == [
        (KEY, State.READY),
        (other, State.READY),
    ]
    rig.fleet.destroy_and_wait(other, 10)
    assert (state_of(rig, first), state_of(rig, second)) == (State.READY, State.GONE)
    assert (len(clouds.cheap.alive), len(clouds.dear.alive)) == (1, 0)


def test_a_cloud_out_of_reach_does_not_keep_machines_elsewhere_from_going(clouds: Clouds) -> None:
    request(clouds.rig)
    clouds.rig.fleet.wait(KEY, 10)
    clouds.dear.unavailable = True
    clouds.rig.fleet.destroy_and_wait(KEY, 5)
    assert not clouds.cheap.alive


def test_a_machine_that_nobody_knows_of_is_looked_for_in_every_cloud(clouds: Clouds) -> None:
    clouds.dear.unavailable = True
    with pytest.raises(ProviderUnavailable):
        clouds.rig.fleet.destroy(KEY)
