"""Simulates bursts on the limits of real clouds; prints tables and, with `--plots FOLDER`, draws
them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from bench import report
from bench.simulation.plans import GROWTHS, bursts, gathering
from bench.simulation.scenario import Plan, Served, simulate


def main(counts: Sequence[int], plots: Path | None) -> None:
    _gathering()
    for count in counts:
        served = [_simulated(plan, f"{count:,} machines") for plan in bursts(count)]
        report.say(f"### {count:,} machines wanted at once")
        report.table(
            ["", "first s", "half s", "last s", "ready", "applies", "at once", "throttled calls"],
            [_row(one) for one in served],
        )
        if plots is not None:
            from bench.simulation.plot import draw

            draw(served, count, plots / f"{count}.svg")


def _gathering() -> None:
    report.say("### Gathering")
    report.say("Applies / mean seconds from asked for to ready, by the growth of the window.")
    report.table(
        ["asked for", *(f"{growth:g}" for growth in GROWTHS)],
        [
            [asked, *(_short(_simulated(plan, "gathering")) for plan in plans)]
            for asked, plans in gathering().items()
        ],
    )


def _simulated(plan: Plan, what: str) -> Served:
    report.progress(f"{what}: {plan.name}")
    return simulate(plan)


def _short(served: Served) -> str:
    waited = mean(served.ready) - mean(served.plan.arrivals)
    return f"{served.account.applies} / {waited:.1f}"


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
