"""The soak's own parts, and a minute of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from .clouds import local
from .measures import BLOCKS, BUILTINS, MIB, OBJECTS, Measures, changes, least, more_objects, slope
from .soak import answers_in, soak, unexpected
from .soaked import Look, Soaked, render

REST = Measures(
    sqlite=MIB,
    malloc=25 * MIB,
    blocks=300_000,
    memory=100 * MIB,
    ledger=MIB,
    threads=5,
    handles=9,
    ledger_handles=11,
    sockets=0,
    processes=1,
    machines=0,
    alive=0,
    owners=1,
    states=0,
    host_keys=0,
    files=12,
)


def test_all_but_memory_and_what_is_pooled_is_to_be_as_it_was() -> None:
    assert changes(REST, replace(REST, memory=105 * MIB, ledger_handles=31)) == []
    assert changes(REST, replace(REST, threads=6, files=11)) == [
        "threads: 5 before, 6 after",
        "files: 12 before, 11 after",
    ]
    (memory,) = changes(REST, replace(REST, memory=109 * MIB))
    assert memory == "memory: 9.0 MiB more than before"
    assert len(changes(REST, replace(REST, ledger_handles=33))) == 1
    assert len(changes(REST, replace(REST, sockets=1))) == 1
    assert changes(REST, replace(REST, sockets=1), pooled=1) == []


def test_what_sqlite_keeps_of_a_ledger_that_grows_is_no_growth_of_ours() -> None:
    kept = replace(REST, sqlite=6 * MIB, malloc=30 * MIB, ledger=9 * MIB)
    assert changes(REST, replace(kept, memory=113 * MIB)) == []
    assert len(changes(REST, replace(kept, memory=114 * MIB))) == 1


def test_what_is_given_out_and_not_given_back_is_a_leak_whatever_is_resident() -> None:
    (in_use,) = changes(REST, replace(REST, malloc=27 * MIB))
    assert in_use == "memory in use: 2.0 MiB more than before"
    (blocks,) = changes(REST, replace(REST, blocks=REST.blocks + BLOCKS + 1))
    assert blocks == "blocks: 300000 before, 310001 after"


def test_what_comes_and_goes_at_rest_is_left_out() -> None:
    looks = [replace(REST, threads=7), replace(REST, threads=6, processes=3)]
    assert least(looks) == replace(REST, threads=6)


def test_memory_that_wavers_has_no_slope_and_memory_that_grows_has_one() -> None:
    minutes = [float(minute) for minute in range(10)]
    wavers = [(100 + minute % 2) * MIB for minute in range(10)]
    assert abs(slope(minutes, wavers)) < 0.2
    # What the first half does is its warming up.
    grows = [100 * MIB] * 5 + [(100 + 2 * minute) * MIB for minute in range(5)]
    assert slope(minutes, grows) == pytest.approx(2.0)
    assert slope(minutes[:3], grows[:3]) == 0.0


def test_types_of_which_there_are_many_more_are_told() -> None:
    before = {"a.Session": 3, "a.Cache": 100}
    assert more_objects(before, {"a.Session": 3 + OBJECTS, "a.Cache": 90, "a.New": 2}) == []
    assert more_objects(before, {"a.Session": 4 + OBJECTS}) == [
        f"a.Session: 3 objects before, {4 + OBJECTS} after"
    ]
    assert more_objects({}, {"builtins.tuple": BUILTINS}) == []
    assert len(more_objects({}, {"builtins.tuple": BUILTINS + 1})) == 1


def test_answers_and_tracebacks_are_found(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_text("vm-1 waitVM begins\nvm-1 waitVM 0\n7 runJob begins\n7 runJob -1\n")
    assert answers_in(journal) == {"waitVM 0": 1, "runJob -1": 1}
    log = "a word\nTraceback (most recent call last):\n  File\n    code\nKeyError: 'x'\nanother\n"
    assert unexpected(log) == ["KeyError: 'x'"]
    assert unexpected("a word\n") == []


def test_the_report_has_a_row_for_each_look_and_says_what_is_wrong() -> None:
    soaked = Soaked("local", 7, wrong=["threads: 5 before, 6 after"])
    soaked.looks.append(Look(0.0, REST, {"lives": 3}, at_rest="baseline"))
    soaked.looks.append(Look(1.04, replace(REST, threads=31), {"lives": 40}))
    lines = render(soaked).splitlines()
    memory, rest = "100.0 | 25.0 | 1.0 | 1.0 | 300000", "9 | 11 | 0 | 1 | 0 | 0 | 1 | 0 | 0 | 12"
    assert f"| baseline | 3 | {memory} | 5 | {rest} |" in lines
    assert f"| 1.0 min | 40 | {memory} | 31 | {rest} |" in lines
    assert "- WRONG: threads: 5 before, 6 after" in lines
    soaked.wrong.clear()
    assert "Nothing is wrong." in render(soaked)


@pytest.mark.slow
def test_after_a_minute_of_load_and_faults_nothing_has_grown_or_stayed(tmp_path: Path) -> None:
    soaked = Soaked("local", seed=1)
    with local(tmp_path) as cloud:
        soak(cloud, tmp_path, tmp_path / "log", soaked, minutes=1)
    assert soaked.wrong == []
    assert soaked.looks[-1].done["jobs"] > 0
    assert soaked.struck.total() > 0
