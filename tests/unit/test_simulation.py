"""The simulation: the committer's own code, served by a model of a cloud, the same in every run."""

from __future__ import annotations

from bench.simulation.clouds import EC2, GCE
from bench.simulation.scenario import Plan, Served, simulate
from tango_cloud.core.model import Rate

PACE = EC2.limits.requests


def _burst(count: int, rate: Rate | None = PACE) -> Served:
    return simulate(Plan("burst", EC2, [0.0] * count, rate))


def test_every_machine_is_made_once_and_the_cloud_is_never_asked_too_fast() -> None:
    served = _burst(60)
    account = served.account
    assert len(served.ready) == 60
    assert len(set(account.claimed)) == len(account.claimed) == 60 + account.full
    assert account.throttled == 0
    assert served.ready[-1] < 60 / PACE.per_second + 60


def test_without_our_pace_the_cloud_refuses() -> None:
    """Else the test before proves nothing."""
    assert _burst(60, rate=None).account.throttled > 0


def test_it_is_the_same_in_every_run() -> None:
    assert _burst(30).ready == _burst(30).ready


def test_a_burst_where_the_cloud_lets_us_is_one_apply() -> None:
    served = simulate(Plan("burst", GCE, [0.0] * 100, Rate(500, 15.0)))
    assert served.account.applies <= 1 + served.account.full
    assert served.account.throttled == 0
