"""Writes docs/hostile-jobs.md: runs the hostile jobs and puts what came of them into a table.

    python -m tests.hostile_table docs/hostile-jobs.md

Ends with status 1, and writes nothing, if any of them got what it wanted. `make hostile` makes what
it needs first.
"""

from __future__ import annotations

import argparse
import datetime as dt
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TESTS = "tests/contract/test_hostile_jobs.py"
HELD, FAILED = "held", "**failed**"
HEAD = """\
# Hostile jobs

Each row is a test in `tests/contract/test_hostile_jobs.py`: a job that tries something. Each column
is a kind of machine and the level of isolation that it was told to use, as in
[security.md](security.md#jobs). *held*: the attempt failed, or was told for what it was, and the
next job on the machine found nothing of it.

Written by `make hostile`, {when}, on {where} with the kernel {kernel}. The virtual machine is
Debian 12 with systemd and cgroup version 2, set up by the user data that a cloud's machines get and
emulated by QEMU. The agent is root on the columns `root` and `virtual machine`, where jobs have a
user of their own, and an ordinary user on the others.
"""


@dataclass
class Results:
    """A pytest plugin. `cells` has the outcome by attack and setting."""

    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    _known: dict[str, tuple[str, str]] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: Sequence[pytest.Function]) -> None:
        for item in items:
            kind, level = item.callspec.params["setting"]
            attack = item.originalname.removeprefix("test_").replace("_", " ")
            self._known[item.nodeid] = (attack, f"{kind}: {level}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        cell = self._known[report.nodeid]
        if report.failed:
            self.cells[cell] = FAILED
        elif report.skipped:
            assert isinstance(report.longrepr, tuple)
            reason = str(report.longrepr[2]).removeprefix("Skipped: ")
            self.cells.setdefault(cell, reason)
        elif report.when == "call":
            self.cells.setdefault(cell, HELD)


def render(cells: Mapping[tuple[str, str], str]) -> str:
    """The table, and a note for each reason why an attempt was not made."""
    settings = list(dict.fromkeys(setting for _, setting in cells))
    notes: list[str] = []
    lines = [row(["the job …", *settings]), row(["---"] * (len(settings) + 1))]
    for attack in dict.fromkeys(attack for attack, _ in cells):
        found = [cells.get((attack, setting), "") for setting in settings]
        notes += dict.fromkeys(one for one in found if one not in (HELD, FAILED, "", *notes))
        lines.append(
            row([attack, *(one if one in (HELD, FAILED) else mark(notes, one) for one in found)])
        )
    return "\n".join([*lines, "", *(f"{n}. {note}" for n, note in enumerate(notes, 1)), ""])


def mark(notes: Sequence[str], reason: str) -> str:
    return f"({notes.index(reason) + 1})" if reason else ""


def row(words: Iterable[str]) -> str:
    return f"| {' | '.join(words)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("words", nargs="*", help="more arguments for pytest, after --")
    told = parser.parse_args()
    results = Results()
    pytest.main(
        ["-q", "-p", "no:cacheprovider", "-m", "slow or not slow", TESTS, *told.words],
        plugins=[results],
    )
    if FAILED in results.cells.values() or not results.cells:
        return 1
    about = HEAD.format(
        when=f"{dt.datetime.now(dt.UTC):%d %B %Y}",
        where=platform.freedesktop_os_release()["PRETTY_NAME"],
        kernel=platform.release(),
        user="root"
        if any(setting.startswith("root") for _, setting in results.cells)
        else "a user",
    )
    told.file.write_text(f"{about}\n{render(results.cells)}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
