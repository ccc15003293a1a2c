"""A wave has machines of many who want one: what strikes one of them is not the others' fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tango_cloud.core.errors import (
    ConfigurationError,
    Fault,
    LedgerUnavailable,
    NotReadyInTime,
    ProvisioningError,
    TerraformError,
)
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import Machine, MachineKey, MachineRequest, Offer, Shape
from tango_cloud.orchestration.stacks import WaveReport

from ..waiting import wait_until
from .conftest import KEY, SHAPE, Rig, book, build_rig, ready, state_of
from .fakes import FakeCloud, FakeTransport

OTHER = MachineKey("prod", 2000, "local")


class Interruptible(FakeCloud):
    """Its first apply makes nothing, and lasts until it is interrupted."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.halted = threading.Event(), threading.Event()

    def apply(
        self, provider: str, wave: str, requests: Sequence[MachineRequest], **listeners: Any
    ) -> WaveReport:
        if self.begun.is_set():
            return super().apply(provider, wave, requests, **listeners)
        self.begun.set()
        assert self.halted.wait(10)
        failure = TerraformError(["terraform", "apply"], 1, "", ["cancelled"])
        return WaveReport(frozenset(), failure=failure, interrupted=True)

    def halt(self) -> None:
        self.halted.set()


@pytest.fixture
def two(ledger: Ledger, tmp_path: Path) -> Iterator[tuple[Rig, Rig, Interruptible]]:
    """Two processes of one deployment, and their cloud."""
    cloud = Interruptible()
    here = build_rig(ledger, cloud, FakeTransport(), tmp_path)
    there = build_rig(ledger, cloud, here.transport, tmp_path)
    yield here, there, cloud
    here.fleet.close()
    there.fleet.close()


def test_ctrl_c_costs_nobody_else_a_machine(two: tuple[Rig, Rig, Interruptible]) -> None:
    here, there, cloud = two
    mine, others = book(here, KEY), book(there, OTHER)
    here.committer.kick_creation()
    assert cloud.begun.wait(10)
    here.fleet.halt([KEY])
    wait_until(lambda: state_of(here, mine) is State.GONE)
    anew = there.fleet.wait(OTHER, 10)
    assert anew.uid != others.uid
    assert anew.attempt == 0, "it was never tried"
    assert here.ledger.machines.live(KEY) is None


def test_who_was_interrupted_creates_nothing_before_it_asks_again(
    two: tuple[Rig, Rig, Interruptible],
) -> None:
    here, there, cloud = two
    cloud.begun.set()
    ready(here, KEY)
    here.fleet.halt([KEY])
    others = book(there, OTHER)
    here.fleet.destroy_and_wait(KEY, 10)
    time.sleep(0.2)
    assert state_of(here, others) is State.REQUESTED
    here.fleet.request(KEY, SHAPE, 60)
    assert here.fleet.wait(KEY, 10)
    assert here.fleet.wait(OTHER, 10).uid == others.uid


def test_one_that_cannot_be_asked_for_leaves_its_neighbours_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its image was removed since it was asked for, say."""
    offers = rig.cloud.offers

    def offers_of(shape: Shape) -> Sequence[Offer]:
        if shape.image == "old.img":
            raise ConfigurationError([Fault("image", "there is no old.img here")])
        return offers(shape)

    book(rig, KEY)
    rig.ledger.machines.request(OTHER, "fake", Shape("old.img"), 60)
    monkeypatch.setattr(rig.cloud, "offers", offers_of)
    assert rig.fleet.wait(KEY, 10).attempt == 0
    with pytest.raises(ProvisioningError, match=r"no old\.img here"):
        rig.fleet.wait(OTHER, 10)


def test_a_plan_that_one_machine_spoils_is_made_without_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terraform then tries none of them."""
    made = rig.cloud.apply

    def apply(provider: str, wave: str, requests: Sequence[MachineRequest], **more: Any) -> Any:
        spoilt = {r.uid: ProvisioningError("bad type") for r in requests if r.key == OTHER}
        if spoilt:
            return WaveReport(frozenset(), spoilt, TerraformError(["apply"], 1, "bad type"))
        return made(provider, wave, requests, **more)

    monkeypatch.setattr(rig.cloud, "apply", apply)
    book(rig, KEY)
    book(rig, OTHER)
    assert rig.fleet.wait(KEY, 10).attempt == 0
    with pytest.raises(ProvisioningError, match="bad type"):
        rig.fleet.wait(OTHER, 10)


def test_what_was_made_before_the_others_failed_is_removed_though_no_listing_has_it(
    rig: Rig,
) -> None:
    rig.cloud.refuse = lambda request: ProvisioningError("bad") if request.key == OTHER else None
    machine = book(rig, KEY)
    book(rig, OTHER)
    rig.cloud.hidden.add(f"i-{machine.uid}")
    rig.committer.kick_creation()
    with pytest.raises(ProvisioningError, match="bad"):
        rig.fleet.wait(OTHER, 10)
    rig.fleet.destroy_and_wait(KEY, 10)
    assert rig.cloud.terminated == [f"i-{machine.uid}"]
    assert not rig.cloud.alive


def test_a_claim_that_fails_does_not_lose_what_was_claimed_before_it(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = FakeCloud("first"), FakeCloud("second")
    rig = build_rig(ledger, first, FakeTransport(), tmp_path, others=[second])
    request_at(rig, KEY, "first")
    request_at(rig, OTHER, "second")
    claim, failures = ledger.intents.claim, [LedgerUnavailable("it is locked")]

    def claim_or_fail(deployment: str, provider: str, *more: Any, **named: Any) -> Any:
        if provider == "second" and failures:
            raise failures.pop()
        return claim(deployment, provider, *more, **named)

    monkeypatch.setattr(ledger.intents, "claim", claim_or_fail)
    assert rig.fleet.wait(KEY, 10).provider == "first"
    assert rig.fleet.wait(OTHER, 10).provider == "second"
    assert not failures
    rig.fleet.close()


def test_who_knows_a_cloud_not_leaves_its_machines_to_those_who_do(
    rig: Rig, tmp_path: Path
) -> None:
    elsewhere = FakeCloud("elsewhere")
    there = build_rig(rig.ledger, elsewhere, FakeTransport(), tmp_path, others=[rig.cloud])
    machine = request_at(there, OTHER, "elsewhere")
    ready(rig)
    assert state_of(rig, machine) is State.REQUESTED
    assert there.fleet.wait(OTHER, 10).uid == machine.uid
    there.fleet.close()


def test_a_dead_owners_wave_waits_for_its_cloud(rig: Rig) -> None:
    machine = book(rig, KEY)
    rig.ledger.intents.claim("prod", "fake", "wave1", "dead-owner")
    rig.cloud.unavailable = True
    with pytest.raises(NotReadyInTime, match="the cloud to answer"):
        rig.fleet.wait(KEY, 0.5)
    assert state_of(rig, machine) is State.CREATING
    rig.cloud.unavailable = False
    assert rig.fleet.wait(KEY, 10).uid != machine.uid, "none was made"


def request_at(rig: Rig, key: MachineKey, provider: str) -> Machine:
    return rig.ledger.machines.request(key, provider, Shape("fake.img"), 60)[0]
