"""A few short walks; `make walks` takes hundreds of longer ones."""

from __future__ import annotations

from .walk import Walk, walk


def test_whatever_happens_one_pass_puts_everything_right() -> None:
    walk(walks=6, steps=20, number=1)
    assert Walk.tally["jobs that began"], "nothing happened"
