"""Packing a job's artifacts, and unpacking them on our side."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tango_cloud.machine import packing
from tango_cloud.machine.packing import (
    FETCHED,
    MISSING,
    TOO_LARGE,
    UNUSABLE,
    Packed,
    pack,
)
from tango_cloud.transports.artifacts import unpack


class Scene:
    """A job directory, and the folder that its artifacts are put into."""

    def __init__(self, folder: Path) -> None:
        self.job = folder / "job"
        self.local = folder / "local"
        self.archive = folder / "archive"
        self.job.mkdir()

    def write(self, name: str, content: bytes = b"x") -> Path:
        file = self.job / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def take(self, *paths: str, limit: int = 1000) -> list[Packed]:
        """Pack and unpack; what became of each path."""
        top = os.open(self.job, os.O_RDONLY | os.O_DIRECTORY)
        sink = os.open(self.archive, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            told = pack(top, paths, limit, sink)
        finally:
            os.close(sink)
            os.close(top)
        unpack([self.archive.read_bytes()], self.local, limit)
        return told

    def came(self) -> set[str]:
        return {str(path.relative_to(self.local)) for path in self.local.rglob("*")}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_files_and_directories_under_their_names(scene: Scene) -> None:
    scene.write("a/b/new\nline", b"1" * 600)
    scene.write("a/run").chmod(0o4755)
    scene.write("a/" + "n" * 200)
    (scene.job / "a/empty").mkdir()
    scene.write("x").chmod(0o400)
    scene.write("other")
    assert scene.take("a", "x") == [Packed(FETCHED, 3, 602), Packed(FETCHED, 1, 1)]
    assert scene.came() == {"a", "a/b", "a/b/new\nline", "a/run", "a/" + "n" * 200, "a/empty", "x"}
    assert (scene.local / "a/b/new\nline").read_bytes() == b"1" * 600
    umask = os.umask(0)
    os.umask(umask)
    modes = [(scene.local / name).stat().st_mode & 0o7777 for name in ("a/run", "x")]
    assert modes == [0o777 & ~umask, 0o666 & ~umask]


def test_what_is_not_there(scene: Scene) -> None:
    scene.write("x")
    assert [packed.status for packed in scene.take("absent", "absent/too", "x")] == [
        MISSING,
        MISSING,
        FETCHED,
    ]


def test_one_that_is_too_large_leaves_its_room_to_the_next(scene: Scene) -> None:
    for name in ("first", "small"):
        scene.write(name, b"1" * 100)
    for name in ("large/a", "large/b"):
        scene.write(name, b"2" * 150)
    with (scene.job / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    told = scene.take("first", "sparse", "large", "small", limit=399)
    assert [packed.status for packed in told] == [FETCHED, TOO_LARGE, TOO_LARGE, FETCHED]
    assert scene.came() == {"first", "small"}
    assert scene.archive.stat().st_size == 2 * 1024 + 1024


def test_more_entries_than_anybody_looks_at(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_ENTRIES", 5)
    for number in range(4):
        scene.write(f"fits/{number}")
        scene.write(f"many/{number}/x")
    scene.write("one")
    told = scene.take("many", "fits", "one")
    assert [packed.status for packed in told] == [TOO_LARGE, FETCHED, TOO_LARGE]


def test_a_machine_without_room(scene: Scene) -> None:
    scene.write("large", bytes(6000))
    scene.write("small", bytes(100))
    # A limit on the size of files fails a write as a full disk does, with another word.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        told = scene.take("large", "small", limit=10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [packed.status for packed in told] == [TOO_LARGE, FETCHED]
    assert scene.came() == {"small"}


def _link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "secret")


def _link_to_directory(path: Path) -> None:
    path.symlink_to(path.parent.parent)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))


@pytest.mark.parametrize("make", [_link, _link_to_directory, os.mkfifo, _socket])
def test_nothing_but_files_and_directories(
    scene: Scene, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scene.job)
    (scene.job.parent / "secret").write_text("secret")
    scene.write("d/x")
    make(scene.job / "odd")
    make(scene.job / "d/odd")
    told = scene.take("odd", "odd/secret", "d")
    assert told == [Packed(UNUSABLE), Packed(UNUSABLE), Packed(FETCHED, 1, 1, left_out=1)]
    assert scene.came() == {"d", "d/x"}


def test_deeper_than_anybody_walks(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scene.job)
    for _ in range(packing.MAX_DEPTH + 5):
        Path("d").mkdir()
        os.chdir("d")
    (told,) = scene.take("d")
    assert told == Packed(FETCHED, left_out=1)
    assert len(scene.came()) == packing.MAX_DEPTH
