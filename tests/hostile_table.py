"""Writes docs/hostile-jobs.md: what came of the hostile jobs, from pytest's own reports of them.

    pytest -m "slow or not slow" --junitxml=REPORT tests/contract/test_hostile_jobs.py
    python -m tests.hostile_table REPORT... docs/hostile-jobs.md

Several runs may have a report each; of two that hold the same test, the last counts. Ends with
status 1, and writes nothing, if a job got what it wanted. `make hostile` does all of it.
"""

from __future__ import annotations

import argparse
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

HELD, FAILED = "held", "**failed**"
HEAD = """\
# Hostile jobs

Each row is a test in `tests/contract/test_hostile_jobs.py`: a job that tries something. Each column
is a kind of machine and the level of isolation that it was told to use, as in
[security.md](security.md#jobs). *held*: the attempt failed, or was told for what it was, and the
next job on the machine found nothing of it.

Written by `make hostile`, {when}, on {where} with the kernel
{kernel}. The virtual machine is Debian 12 with systemd and cgroup version 2, set up by the user
data that a cloud's machines get and emulated by QEMU. The agent is root on the columns `root` and
`virtual machine`, where jobs have a user of their own, and an ordinary user on the others.

"""
_NAME = re.compile(r"test_(\w+)\[.*?(root|user|unprivileged|virtual machine)-([a-z]+)")

Cells = dict[tuple[str, str], str]
"""What came of an attack (first) in a setting: HELD, FAILED, or why it was not tried."""


def read(report: Path) -> Cells:
    """One run's outcomes. A test with several values has failed if it failed with any of them."""
    cells: Cells = {}
    for case in ElementTree.parse(report).iter("testcase"):
        found = _NAME.match(case.get("name", ""))
        if found is None:
            raise ValueError(f"{report}: {case.get('name')} is no hostile job")
        attack, kind, level = found.groups()
        cell = (attack.replace("_", " "), f"{kind}: {level}")
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            cells[cell] = FAILED
        elif skipped is not None:
            cells.setdefault(cell, skipped.get("message", ""))
        elif cells.get(cell) != FAILED:
            cells[cell] = HELD
    return cells


def render(cells: Mapping[tuple[str, str], str]) -> str:
    """The table, and a note for each reason why an attempt was not made."""
    settings = list(dict.fromkeys(setting for _, setting in cells))
    notes = [one for one in dict.fromkeys(cells.values()) if one not in (HELD, FAILED)]
    words = {HELD: HELD, FAILED: FAILED, "": ""}
    words.update((note, f"({number})") for number, note in enumerate(notes, 1))
    attacks = dict.fromkeys(attack for attack, _ in cells)
    lines = [
        ["the job …", *settings],
        ["---"] * (len(settings) + 1),
        *(
            [attack, *(words[cells.get((attack, one), "")] for one in settings)]
            for attack in attacks
        ),
    ]
    table = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*table, "", *(f"{words[note]} {note}.  " for note in notes), ""])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("report", nargs="+", type=Path)
    parser.add_argument("page", type=Path)
    told = parser.parse_args(arguments)
    cells: Cells = {}
    for report in told.report:
        cells.update(read(report))
    if FAILED in cells.values():
        return 1
    suite = ElementTree.parse(told.report[-1]).find(".//testsuite")
    assert suite is not None
    about = HEAD.format(
        when=suite.get("timestamp", "")[:10],
        where=platform.freedesktop_os_release()["PRETTY_NAME"],
        kernel=platform.release(),
    )
    told.page.write_text(about + render(cells), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
