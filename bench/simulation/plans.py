"""What is simulated: bursts on the limits of each cloud, and ways to gather what is asked for."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.simulation.clouds import EC2, EC2_RAISED, GCE, OneCallWaves
from bench.simulation.scenario import DEFAULT_WINDOW, Plan
from tango_cloud.core.model import Rate
from tango_cloud.core.sections import AwsSettings, GcpSettings

_AWS, _GCP = AwsSettings(), GcpSettings()
_EC2_PACE = Rate(_AWS.launch_burst, _AWS.launches_per_second)
_GCE_PACE = Rate(_GCP.insert_burst, _GCP.inserts_per_second)
_RAISED_PACE = Rate(EC2_RAISED.limits.requests.burst, 0.7 * EC2_RAISED.limits.requests.per_second)
_SEED = 2026
_EACH_TAKES_HOURS = 1000

GROWTHS = (1.0, 2.0, 4.0, 8.0)


def bursts(count: int) -> Sequence[Plan]:
    """`count` machines wanted at once. `machines=1` is an apply for each."""
    wanted = [0.0] * count
    # As many places as machines are begun in the time that one of them occupies its place.
    places = round(EC2.settle * EC2.limits.requests.per_second)
    each = Plan("EC2, an apply each, four at a time", EC2, wanted, None, machines=1)
    return [
        Plan("EC2", EC2, wanted, _EC2_PACE),
        Plan("EC2, ten applies at a time", EC2, wanted, _EC2_PACE, applies=10),
        Plan(
            "EC2, the same, all that the limit allows", EC2, wanted, EC2.limits.requests, applies=10
        ),
        Plan(
            f"EC2, one apply, {places} machines at a time",
            replace(EC2, parallelism=places),
            wanted,
            None,
            machines=1000,
            applies=1,
        ),
        Plan("EC2, no pace of our own", EC2, wanted, None),
        *([each] if count <= _EACH_TAKES_HOURS else []),
        Plan(
            "EC2, one call for all (not built)",
            EC2,
            wanted,
            EC2.limits.instances,
            machines=EC2.limits.instances.burst,
            waves=OneCallWaves,
        ),
        Plan("EC2, limit raised to 100 + 50/s", EC2_RAISED, wanted, _RAISED_PACE),
        Plan("Compute Engine", GCE, wanted, _GCE_PACE),
    ]


def gathering() -> Mapping[str, Sequence[Plan]]:
    """Ways of asking, each with windows that grow more and more; growth 1 is a fixed window."""
    model = replace(EC2_RAISED, full=0.0)  # else waves are made for single machines anew
    return {
        asked: [
            Plan(
                asked,
                model,
                arrivals,
                _RAISED_PACE,
                window=replace(DEFAULT_WINDOW, growth=growth),
            )
            for growth in GROWTHS
        ]
        for asked, arrivals in _arrivals().items()
    }


def _arrivals() -> Mapping[str, Sequence[float]]:
    source = random.Random(_SEED)
    moment, by_chance = 0.0, []
    while (moment := moment + source.expovariate(2.0)) < 300.0:
        by_chance.append(moment)
    return {
        "one": [0.0],
        "50 at once": [0.0] * 50,
        "200 at once": [0.0] * 200,
        "200, 20 a second": [number / 20 for number in range(200)],
        "2 a second by chance, 5 minutes": by_chance,
    }
