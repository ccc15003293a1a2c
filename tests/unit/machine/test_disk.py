from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tango_cloud.machine import disk


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    number = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield number
    os.close(number)


def measured(top: int) -> int:
    return max(disk.measure([top]))


def test_counts_blocks_and_entries_below(tmp_path: Path, top: int) -> None:
    before = measured(top)
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_bytes(b"x" * 100_000)
    added = measured(top) - before
    assert 100_000 + 3 * disk.ENTRY_BYTES <= added < 200_000


def test_a_sparse_file_counts_for_what_it_takes(tmp_path: Path, top: int) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    assert measured(top) < 1 << 20


def test_goes_through_no_link(tmp_path: Path, top: int) -> None:
    before = measured(top)
    (tmp_path / "link").symlink_to("/usr")
    assert measured(top) - before < 10_000


def test_watch_tells_the_limit_and_not_before(
    tmp_path: Path, top: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("tango_cloud.machine.disk.time.monotonic", lambda: now[0])
    watch = disk.DiskWatch([top], 50_000)
    assert not watch.exceeded()
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    assert not watch.exceeded()  # no look is due yet
    now[0] = watch.next_look
    assert watch.exceeded()
    assert "50000 bytes" in watch.reason


def test_watch_keeps_a_reserve_without_any_limit(top: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("tango_cloud.machine.disk.time.monotonic", lambda: now[0])
    monkeypatch.setattr(disk, "RESERVE", 1 << 60)
    watch = disk.DiskWatch([top], None)
    now[0] = watch.next_look
    assert watch.exceeded()
    assert "full" in watch.reason


def test_a_huge_directory_is_measured_in_slices(tmp_path: Path, top: int) -> None:
    for number in range(1000):
        (tmp_path / str(number)).touch()
    assert len(list(disk.measure([top]))) > 4


def test_more_directories_than_can_be_remembered_are_too_much(
    tmp_path: Path, top: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        (tmp_path / f"{number:0200}").mkdir()
    whole = measured(top)
    assert whole < 1 << 30
    monkeypatch.setattr(disk, "_MAX_WAITING", 100 * 200)
    assert measured(top) == whole
    monkeypatch.setattr(disk, "_MAX_WAITING", 50 * 200)
    assert measured(top) > 1 << 60
