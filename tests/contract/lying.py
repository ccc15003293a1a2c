"""A cloud that lies: what it tells is late or in part, what it is told it does late, twice or not
at all. By none of it is anything lost, made twice or left behind.

A cloud's test module has a class that inherits `LyingCloud`, and a fixture `lies`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from tango_cloud.api import Cloud
from tango_cloud.cli.exit_codes import ExitCode
from tango_cloud.core.errors import ProviderUnavailable
from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import Machine

from ..chaos.invariants import (
    AT_ONCE,
    assert_consistent,
    assert_no_process_but,
    assert_nothing_lives,
    picture_of,
)
from ..emulated import EmulatedDeployment
from ..waiting import wait_until

READY_SECONDS = 120.0


@dataclass
class Lies(ABC):
    """What a deployment's cloud gets wrong on order."""

    deployment: EmulatedDeployment
    fault: ClassVar[Any]
    """The class of its emulation's faults."""
    listing: ClassVar[str]
    creation: ClassVar[str]
    removal: ClassVar[str]
    """The cloud's names of the calls that matter."""
    failure: ClassVar[str]
    """Its code of an error that is its own fault."""

    def order(self, effect: str, action: str, **more: object) -> None:
        """A fault, until it is over or `stop` is called."""
        self.deployment.emulation.order(self.fault(effect, action, **more))

    @abstractmethod
    def go_away(self) -> None:
        """The region cannot be reached, until `stop` is called."""

    def stop(self) -> None:
        self.deployment.emulation.clear()

    def assert_only(self, cloud: Cloud, *machines: Machine) -> None:
        """These live on, and nothing else does; a pass finds nothing wrong."""
        self.stop()
        wait_until_settled(cloud)
        assert not cloud.reconcile()
        picture = picture_of(self.deployment)
        assert_consistent(picture)
        assert_no_process_but(self.deployment, picture.instances)
        assert {one.uid for one in picture.booked} == {machine.uid for machine in machines}

    def assert_nothing(self, cloud: Cloud) -> None:
        self.assert_only(cloud)
        assert_nothing_lives(self.deployment)


def ask(cloud: Cloud) -> Machine:
    """A machine that nobody has made yet, and that outlives this process."""
    return cloud._fleet.request_next(cloud.shape(), 600, keep=True)


def wait(cloud: Cloud, machine: Machine) -> Machine:
    return cloud._fleet.wait(machine.key, READY_SECONDS)


def booked(cloud: Cloud) -> list[State]:
    machines = cloud._fleet._ledger.machines.all_live(cloud.settings.prefix)
    return [machine.state for machine in machines]


def wait_until_settled(cloud: Cloud) -> None:
    """Until no wave is being applied."""
    wait_until(lambda: not cloud._fleet._ledger.waves.applying(cloud.settings.prefix), 60, 0.2)


class LyingCloud:
    """Inherit this; the module needs a fixture `lies`."""

    @pytest.fixture
    def cloud(self, lies: Lies, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
        """The deployment in this process. Its passes take nothing for too young to be judged."""
        for name, value in (lies.deployment.environment | AT_ONCE).items():
            monkeypatch.setenv(name, value)
        with Cloud() as cloud:
            yield cloud
            lies.stop()

    def test_listings_that_are_late_or_in_part_lose_nothing_and_make_nothing_twice(
        self, lies: Lies, cloud: Cloud
    ) -> None:
        lies.order("stale", lies.listing, delay=2)
        lies.order("boot-delay", lies.creation, delay=5)
        with ThreadPoolExecutor(1) as waiter:
            asked = ask(cloud)
            waiting = waiter.submit(wait, cloud, asked)
            wait_until(lambda: booked(cloud) == [State.STARTING], READY_SECONDS, 0.1)
            # While it does not answer, either. One look at a machine may take two listings.
            lies.order("incomplete", lies.listing, times=3)
            assert waiting.result().uid == asked.uid
        wait_until_settled(cloud)
        lies.order("incomplete", lies.listing)
        (outcome,) = cloud.reconcile()
        assert (outcome.finding.kind, outcome.error[:10]) == ("lost", "it answers")
        lies.assert_only(cloud, asked)
        lies.order("stale", lies.listing, delay=2)
        lies.order("incomplete", lies.listing, times=1)
        cloud.destroy(asked.key)
        lies.assert_nothing(cloud)

    @pytest.mark.slow
    def test_what_will_not_die_stays_on_the_books_and_the_next_pass_sees_it_gone(
        self, lies: Lies, cloud: Cloud
    ) -> None:
        wait(cloud, ask(cloud))
        wait_until_settled(cloud)
        lies.order("undying", lies.removal, delay=4)
        done = lies.deployment.run("destroy", "--all", TANGO_CLOUD_MACHINE__GONE_SECONDS="1")
        assert done.returncode == ExitCode.INFRASTRUCTURE, done.stdout
        assert "is still there after 1 s" in done.stderr
        assert booked(cloud) == [State.DESTROYING]
        (outcome,) = cloud.reconcile()
        assert (outcome.finding.kind, outcome.error) == ("unfinished", "")
        lies.assert_nothing(cloud)

    @pytest.mark.slow
    def test_errors_of_its_own_are_tried_again(self, lies: Lies, cloud: Cloud) -> None:
        for action in (lies.listing, lies.creation, lies.removal):
            lies.order("error", action, code=lies.failure, times=2)
        machine = wait(cloud, ask(cloud))
        cloud.destroy(machine.key)
        lies.assert_nothing(cloud)

    @pytest.mark.slow
    def test_calls_that_are_delivered_twice_make_no_second_machine(
        self, lies: Lies, cloud: Cloud
    ) -> None:
        lies.order("twice", lies.creation, times=1)
        asked = ask(cloud)
        assert wait(cloud, asked).uid == asked.uid
        lies.assert_only(cloud, asked)
        lies.order("twice", lies.removal, times=1)
        cloud.destroy(asked.key)
        lies.assert_nothing(cloud)

    @pytest.mark.slow
    def test_a_region_that_goes_away_comes_back_with_all_that_it_had(
        self, lies: Lies, cloud: Cloud
    ) -> None:
        there = wait(cloud, ask(cloud))
        lies.go_away()
        asked = ask(cloud)
        for command in ("reconcile", "vms"):
            done = lies.deployment.run(command)
            assert done.returncode == ExitCode.INFRASTRUCTURE, done.stdout
        with pytest.raises(ProviderUnavailable):
            cloud.reconcile()
        assert wait(cloud, there).uid == there.uid, "it answers all the same"
        lies.stop()
        assert wait(cloud, there).uid == there.uid
        lies.assert_only(cloud, there, wait(cloud, asked))
        for machine in (there, asked):
            cloud.destroy(machine.key)
        lies.assert_nothing(cloud)
