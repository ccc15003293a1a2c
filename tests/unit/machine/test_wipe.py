from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tango_cloud.machine import wipe


def empty(path: Path) -> None:
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        wipe.empty(number)
    finally:
        os.close(number)


def test_removes_everything_and_follows_nothing(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    job = tmp_path / "job"
    (job / "a/b/c").mkdir(parents=True)
    (job / "a/b/file").write_text("x")
    (job / "a/link").symlink_to(outside)
    (job / "link").symlink_to(outside / "kept")
    os.link(outside / "kept", job / "hard")
    os.mkfifo(job / "fifo")
    empty(job)
    assert not list(job.iterdir())
    assert (outside / "kept").read_text() == "kept"


def test_a_tree_deeper_than_any_path_may_be_long(tmp_path: Path) -> None:
    job = tmp_path / "job"
    job.mkdir()
    folder = os.open(job, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=folder)
        inner = os.open("deep", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    try:
        empty(job)
        assert not list(job.iterdir())
    finally:
        # Python's own rmtree, which pytest cleans up with, cannot remove such a tree.
        subprocess.run(["rm", "-rf", str(job)], check=True)


def test_directories_that_took_their_own_rights_away(tmp_path: Path) -> None:
    job = tmp_path / "job"
    (job / "a/b").mkdir(parents=True)
    (job / "a/b/file").write_text("x")
    (job / "a/b").chmod(0)
    (job / "a").chmod(0)
    empty(job)
    assert not list(job.iterdir())


def test_says_when_something_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = tmp_path / "job"
    job.mkdir()
    (job / "file").write_text("x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr("tango_cloud.machine.wipe.os.unlink", refuse)
    with pytest.raises(OSError, match="not permitted"):
        empty(job)
