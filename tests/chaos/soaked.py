"""What came of a soak, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from .measures import MIB, Measures
from .tables import table


@dataclass(frozen=True, slots=True)
class Look:
    """So many minutes after the baseline, under load, or `at_rest` by the name of that moment.
    `done` counts what had been done by then: `lives`, `jobs` and `faults`.
    """

    minutes: float
    measures: Measures
    done: Mapping[str, int]
    at_rest: str = ""

    @property
    def when(self) -> str:
        return self.at_rest or f"{self.minutes:.1f} min"

    def __str__(self) -> str:
        done = ", ".join(f"{count} {what}" for what, count in self.done.items())
        held = ", ".join(f"{count} {name}" for name, count in _cells(self.measures).items())
        return f"{self.when}: {done}; {held}"


@dataclass
class Soaked:
    """`answers` counts the steps of lives by what came of them, `struck` the faults; `wrong` are
    all things that should not be so, `traced` where memory went, if that was asked for.
    """

    cloud: str
    seed: int
    looks: list[Look] = field(default_factory=list)
    slope: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    traced: Sequence[str] = ()


def render(soaked: Soaked) -> str:
    """A table (Markdown) of all looks, and lists of what was done, and of what was wrong."""
    return "\n".join([*_lines(soaked), ""])


def _lines(soaked: Soaked) -> Iterator[str]:
    yield f"On {soaked.cloud}, seed {soaked.seed}."
    yield ""
    yield from _table(soaked.looks)
    yield ""
    yield f"Memory over the second half, but for SQLite's: {soaked.slope:+.2f} MiB a minute."
    yield ""
    yield from (f"- {what}: {times}" for what, times in sorted(soaked.struck.items()))
    yield ""
    yield from (f"- {what}: {times}" for what, times in sorted(soaked.answers.items()))
    yield ""
    yield from (f"- WRONG: {what}" for what in soaked.wrong or ())
    if not soaked.wrong:
        yield "Nothing is wrong."
    for one in soaked.traced:
        yield from ("", "```", one, "```")


def _table(looks: Sequence[Look]) -> Iterator[str]:
    rows = [{"when": look.when, **look.done, **_cells(look.measures)} for look in looks]
    if rows:
        yield from table(list(rows[0]), (row.values() for row in rows))


def _cells(measures: Measures) -> Mapping[str, object]:
    cells = {name.replace("_", " "): count for name, count in asdict(measures).items()}
    sizes = {
        "MiB": cells.pop("memory"),
        "MiB malloc": cells.pop("malloc"),
        "MiB SQLite": cells.pop("sqlite"),
        "MiB ledger": cells.pop("ledger"),
    }
    return {name: f"{size / MIB:.1f}" for name, size in sizes.items()} | cells
