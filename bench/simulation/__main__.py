"""Simulates bursts on the limits of real clouds; prints the table and, with `--plots FOLDER`, draws
them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench import report
from bench.simulation.clouds import EC2, EC2_RAISED, GCE, OneCallWaves
from bench.simulation.scenario import Plan, Served, simulate
from tango_cloud.core.model import Rate
from tango_cloud.core.sections import AwsSettings, GcpSettings

_AWS, _GCP = AwsSettings(), GcpSettings()
EC2_PACE = Rate(_AWS.launch_burst, _AWS.launches_per_second)
GCE_PACE = Rate(_GCP.insert_burst, _GCP.inserts_per_second)
RAISED_PACE = EC2_RAISED.limits.requests


def bursts(count: int) -> Sequence[Plan]:
    """`count` machines wanted at once. `machines=1` is an apply for each."""
    wanted = [0.0] * count
    return [
        Plan("EC2", EC2, wanted, EC2_PACE),
        Plan("EC2, eight applies at a time", EC2, wanted, EC2_PACE, applies=8),
        Plan("EC2, no pace of our own", EC2, wanted, None),
        Plan("EC2, an apply each, four at a time", EC2, wanted, None, machines=1),
        Plan(
            "EC2, one call for all (not built)",
            EC2,
            wanted,
            EC2.limits.instances,
            machines=EC2.limits.instances.burst,
            waves=OneCallWaves,
        ),
        Plan("EC2, limit raised to 100 + 50/s", EC2_RAISED, wanted, RAISED_PACE),
        Plan("Compute Engine", GCE, wanted, GCE_PACE),
    ]


def main(counts: Sequence[int], plots: Path | None) -> None:
    for count in counts:
        served = []
        for plan in bursts(count):
            if count > 1000 and plan.machines == 1:
                continue  # ten hours; nothing new
            report.progress(f"{count:,} machines: {plan.name}")
            served.append(simulate(plan))
        report.say(f"### {count:,} machines wanted at once")
        report.table(
            ["", "first s", "half s", "last s", "ready", "applies", "at once", "throttled calls"],
            [_row(one) for one in served],
        )
        if plots is not None:
            from bench.simulation.plot import draw

            draw(served, count, plots / f"{count}.svg")


def _row(served: Served) -> Sequence[str]:
    ready, account = served.ready, served.account
    return [
        served.plan.name,
        f"{ready[0]:.0f}",
        f"{ready[len(ready) // 2]:,.0f}",
        f"{ready[-1]:,.0f}",
        f"{len(ready):,}",
        f"{account.applies:,}",
        str(account.most_applying),
        f"{account.throttled:,}",
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plots", type=Path, metavar="FOLDER")
    parser.add_argument("counts", type=int, nargs="*", default=[200, 1000, 10_000], metavar="N")
    chosen = parser.parse_args()
    main(chosen.counts, chosen.plots)
