"""What came of all the deaths, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .scene import Death
from .tables import table

NOT_REACHED = "not reached in this life"
UNHURT = "nothing to mend"
_HEADS = ("cloud", "points", "deaths", "died", "something to mend", "not reached", "wrong")


@dataclass(frozen=True, slots=True)
class Outcome:
    """On a cloud, of a death that was tried. `wrong`: what did not hold after one pass, if so."""

    cloud: str
    death: Death
    wrong: str = ""

    @property
    def kind(self) -> str:
        """Of its point: ledger, process, file, call or ssh."""
        return self.death.point.split()[1]

    def __str__(self) -> str:
        mended = "; ".join(self.death.mended) or UNHURT
        told = mended if self.death.died else NOT_REACHED
        return f"{self.cloud}: {self.death.point}: {f'WRONG: {self.wrong}' if self.wrong else told}"


def render(outcomes: Sequence[Outcome]) -> str:
    """A table (Markdown), what was mended how often, and a line for each death."""
    mended = Counter(what for outcome in outcomes for what in outcome.death.mended)
    return "\n".join(
        [
            *table(_HEADS, _rows(outcomes)),
            "",
            *(f"- {what}: {times}" for what, times in mended.most_common()),
            "",
            *(f"- {outcome}" for outcome in outcomes),
            "",
        ]
    )


def _rows(outcomes: Sequence[Outcome]) -> Iterator[Sequence[object]]:
    groups = dict.fromkeys((outcome.cloud, outcome.kind) for outcome in outcomes)
    for cloud, kind in groups:
        these = [one for one in outcomes if (one.cloud, one.kind) == (cloud, kind)]
        yield _row(cloud, kind, these)
    yield _row("all", "", outcomes)


def _row(cloud: str, kind: str, outcomes: Sequence[Outcome]) -> Sequence[object]:
    sound = [one for one in outcomes if not one.wrong]
    died = [one for one in sound if one.death.died]
    return (
        cloud,
        kind,
        len(outcomes),
        len(died),
        sum(bool(one.death.mended) for one in died),
        len(sound) - len(died),
        len(outcomes) - len(sound),
    )
