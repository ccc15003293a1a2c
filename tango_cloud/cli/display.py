"""What the commands share in how they print. Results go to stdout, all else to stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNCUT = 100_000
"""Characters in a line that is never wrapped."""

out = Console(emoji=False)
errors = Console(stderr=True, emoji=False)


def print_json(told: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> None:
    """One JSON object, or rows as one array, for other programs; docs/cli.md has the keys."""
    plain = told if isinstance(told, Mapping) else list(told)
    print(json.dumps(plain, indent=2, default=str))  # noqa: T201


def unwatched() -> bool:
    """Whether no terminal shows what is printed: a cron would send a mail for every word."""
    return not out.is_terminal


def print_error(text: str) -> None:
    """What is wrong, as it is: a path in it is never cut off, nor taken for markup."""
    errors.print(Text.assemble(("error:", "red"), " ", text), highlight=False, soft_wrap=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows for people. Piped, columns are as wide as they need to be: nothing is cut off."""
    rows = list(rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        # A note is for what needs one: a column of nothing would only make the others narrow.
        width = None if any(row[number] for row in rows) else len(column)
        table.add_column(column, overflow="fold", max_width=width)
    for row in rows:
        table.add_row(*row)
    console = out if out.is_terminal else Console(width=_UNCUT)
    console.print(table, markup=False)


def duration(seconds: float) -> str:
    """Seconds as people say them: `4.2 s`, `3 min`, `5 h`, `2 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"
