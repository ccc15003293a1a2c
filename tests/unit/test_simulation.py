"""The simulation: the committer's own code, served by a model of a cloud, the same in every run."""

from __future__ import annotations

from dataclasses import replace

from bench.simulation.clouds import EC2, GCE
from bench.simulation.plans import GROWTHS, gathering
from bench.simulation.scenario import Plan, Served, simulate
from tango_cloud.core.model import Rate
from tango_cloud.core.sections import AwsSettings

PACE = EC2.limits.requests
EVEN = replace(EC2, start_spread=0.0)
"""Terraform always takes as long to start: calls come at the pace at which they are claimed."""


def _burst(count: int, rate: Rate | None = PACE, applies: int = 10) -> Served:
    return simulate(Plan("burst", EVEN, [0.0] * count, rate, applies=applies))


def test_every_machine_is_made_once_and_the_cloud_is_never_asked_too_fast() -> None:
    served = _burst(200)
    account = served.account
    assert len(served.ready) == 200
    assert len(set(account.claimed)) == len(account.claimed) == 200 + account.full
    assert account.throttled == 0


def test_none_of_our_calls_is_refused_though_applies_take_unequally_long_to_start() -> None:
    aws = AwsSettings()
    pace = Rate(aws.launch_burst, aws.launches_per_second)
    served = simulate(Plan("burst", EC2, [0.0] * 120, pace, applies=10))
    assert len(served.ready) == 120
    assert served.account.throttled == 0
    hasty = simulate(Plan("burst", EC2, [0.0] * 120, PACE, applies=10))
    assert hasty.account.throttled > 0, "else this proves nothing"


def test_gathering_does_not_slow_the_pace() -> None:
    """What a paced cloud makes wait is claimed when its bucket is full, not a window later."""
    half = _burst(200).ready[99]
    assert half < 100 / PACE.per_second + EVEN.start + EVEN.boot + 3


def test_without_our_pace_the_cloud_refuses() -> None:
    """Else the first test proves nothing."""
    assert _burst(60, rate=None).account.throttled > 0


def test_it_is_the_same_in_every_run() -> None:
    first, second = _burst(150, rate=None), _burst(150, rate=None)
    assert first.account == second.account


def test_a_burst_where_the_cloud_lets_us_is_one_apply() -> None:
    served = simulate(Plan("burst", GCE, [0.0] * 100, Rate(500, 15.0)))
    assert served.account.applies <= 1 + served.account.full
    assert served.account.throttled == 0


def test_a_trickle_shares_applies_and_waits_less_in_a_window_that_grows() -> None:
    plans = dict(zip(GROWTHS, gathering()["200, 20 a second"], strict=True))
    fixed, growing = simulate(plans[1.0]), simulate(plans[4.0])
    assert growing.account.applies < 10, "one each would be 200"
    assert sum(growing.ready) < sum(fixed.ready)
