"""Machines ready over time, as a drawing for docs/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.simulation.scenario import Served

_POINTS = 150
"""Of a curve: more cannot be seen."""


def draw(served: Sequence[Served], count: int, file: Path) -> None:
    # The same drawing gives the same file: no date, no random names.
    mpl.rcParams["svg.hashsalt"] = "tango-cloud"
    mpl.rcParams["svg.fonttype"] = "none"
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for one in served:
        numbers = sorted(
            {*range(0, len(one.ready), max(1, len(one.ready) // _POINTS)), len(one.ready) - 1}
        )
        style = "--" if "not built" in one.plan.name else "-"
        axes.step(
            [one.ready[number] for number in numbers],
            [number + 1 for number in numbers],
            where="post",
            linestyle=style,
            label=one.plan.name,
        )
    axes.set_xscale("log")
    axes.set_xlabel("seconds after they were asked for")
    axes.set_ylabel("machines ready")
    axes.set_title(f"{count:,} machines wanted at once (simulated)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
