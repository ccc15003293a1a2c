"""Our archive: what it refuses, and that the machine's extractor takes all the rest."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tango_cloud.core.errors import InputError
from tango_cloud.machine.extract import extract
from tango_cloud.transports import archive
from tango_cloud.transports.protocol import InputFile


def unpack(stream: bytes, folder: Path) -> None:
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        extract(io.BytesIO(stream).read, top)
    finally:
        os.close(top)


def faults(*files: InputFile) -> list[str]:
    with pytest.raises(InputError) as caught:
        archive.check(files)
    return [str(fault) for fault in caught.value.faults]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


COMPONENT = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=60
).filter(lambda name: name not in (".", "..") and len(name.encode()) <= archive.MAX_NAME)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(COMPONENT, min_size=1, max_size=6), content=st.binary(max_size=2000))
def test_any_name_arrives_as_it_was(parts: list[str], content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, job = Path(folder, "source"), Path(folder, "job")
        source.write_bytes(content)
        job.mkdir()
        entries = archive.check([InputFile(source, "/".join(parts))])
        unpack(b"".join(archive.stream(entries)), job)
        assert job.joinpath(*parts).read_bytes() == content


@pytest.mark.parametrize(
    "name",
    ["-rf", "a b", "new\nline", "tab\t", "ünï/cødé", "back\\slash", "x" * 255, "d/" * 400 + "f",
     "\udcff-not-utf8", "~", "$(touch x)", "*"],
)  # fmt: skip
def test_odd_names(file: Path, tmp_path: Path, name: str) -> None:
    job = tmp_path / "job"
    job.mkdir()
    unpack(b"".join(archive.stream(archive.check([InputFile(file, name)]))), job)
    assert (job / name).read_bytes() == b"content"


@pytest.mark.parametrize("size", [0, 1, 2000, 8**11 - 1, 8**11, 1 << 40])
@pytest.mark.parametrize("name", ["x", "a/ünï", "\udcff", "x" * 100, "é" * 50, "d/" * 50 + "x"])
def test_the_headers_are_tars_own(file: Path, name: str, size: int) -> None:
    (entry,) = archive.check([InputFile(file, name)])
    first = next(archive.stream([entry._replace(size=size, mode=0o750)]))
    with tarfile.open(fileobj=io.BytesIO(first + bytes(1024)), encoding="utf-8") as tar:
        told = tar.next()
    assert told is not None
    assert (told.name, told.size, told.mode, told.type) == (name, size, 0o750, tarfile.REGTYPE)
    ours = tarfile.TarInfo(name)
    ours.size, ours.mode = size, 0o750
    assert first == ours.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        ("/etc/passwd", "absolute"),
        ("../x", "leaves"),
        ("a/../../x", "leaves"),
        ("a//b", "component"),
        ("./a", "component"),
        ("a/", "component"),
        ("a\0b", "NUL"),
        ("x" * 256, "component longer"),
        ("d/" * 2000 + "f", "longer than"),
        ("\ud800", "cannot be spelt"),
    ],
)
def test_destinations_that_are_refused(file: Path, name: str, problem: str) -> None:
    (fault,) = faults(InputFile(file, name))
    assert problem in fault


def test_every_fault_is_told_in_one_go(file: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        found = faults(
            InputFile(tmp_path / "absent", "1"),
            InputFile(tmp_path, "2"),
            InputFile(tmp_path / "fifo", "3"),
            InputFile(tmp_path / "socket", "4"),
            InputFile(Path("/dev/null"), "5"),
            InputFile(file, "../6"),
            InputFile(file, "dir"),
            InputFile(file, "dir/x"),
            InputFile(file, "twice"),
            InputFile(file, "twice"),
        )
    text = "\n".join(found)
    for words in (
        "absent: No such file",
        "is a directory",
        "is a FIFO",
        "is a socket",
        "is a device",
        "leaves the job directory",
        "'dir': is a file and another file's directory",
        "'twice': is the destination of two files",
    ):
        assert words in text
    assert len(found) == 8


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(file: Path) -> None:
    file.chmod(0)
    (fault,) = faults(InputFile(file, "x"))
    assert "denied" in fault


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read it")
def test_root_sends_even_what_nobody_may_read(file: Path) -> None:
    file.chmod(0)
    (entry,) = archive.check([InputFile(file, "x")])
    assert entry.mode == 0o400


@pytest.mark.parametrize("mode", [0o644, 0o755, 0o600, 0o500, 0o4755])
def test_modes_are_kept_without_special_bits(file: Path, mode: int) -> None:
    file.chmod(mode)
    (entry,) = archive.check([InputFile(file, "x")])
    assert entry.mode == mode & 0o777


def test_a_file_that_grows_is_sent_as_long_as_it_was(file: Path, tmp_path: Path) -> None:
    entries = archive.check([InputFile(file, "x")])
    file.write_bytes(b"content and more")
    job = tmp_path / "job"
    job.mkdir()
    unpack(b"".join(archive.stream(entries)), job)
    assert (job / "x").read_bytes() == b"content"


def test_a_file_that_shrinks_is_a_fault(file: Path) -> None:
    entries = archive.check([InputFile(file, "x")])
    file.write_bytes(b"con")
    with pytest.raises(InputError, match="shrank by 4 bytes"):
        list(archive.stream(entries))


def test_a_file_that_becomes_something_else_is_a_fault(file: Path) -> None:
    entries = archive.check([InputFile(file, "x")])
    file.unlink()
    with pytest.raises(InputError, match="No such file"):
        list(archive.stream(entries))
    os.mkfifo(file)
    with pytest.raises(InputError, match="FIFO"):
        list(archive.stream(entries))


def test_the_order_is_kept(file: Path) -> None:
    names = ["z", "a", "m/1", "b"]
    entries = archive.check([InputFile(file, name) for name in names])
    assert [entry.destination for entry in entries] == names


def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as large:
        large.truncate(50 << 20)
    pieces = archive.stream(archive.check([InputFile(path, "x")]))
    assert max(len(piece) for piece in pieces) <= archive.CHUNK
