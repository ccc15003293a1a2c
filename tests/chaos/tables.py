"""Tables in Markdown, for reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def table(heads: Sequence[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    yield _row(heads)
    yield f"|{'---|' * len(heads)}"
    yield from map(_row, rows)


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
