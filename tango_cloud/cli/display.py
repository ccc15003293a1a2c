"""What the commands share in how they print. Results go to stdout, all else to stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

out = Console()
errors = Console(stderr=True)


def print_json(rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows for other programs: one JSON array, keys as documented in docs/cli.md."""
    print(json.dumps(list(rows), indent=2, default=str))  # noqa: T201


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows for people. Piped, the columns are as wide as they need to be, and without colour."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    width = None if out.is_terminal else 10_000
    out.print(table, width=width, markup=False, crop=False)


def duration(seconds: float) -> str:
    """Seconds as people say them: `4.2 s`, `3 min`, `5 h`, `2 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"
