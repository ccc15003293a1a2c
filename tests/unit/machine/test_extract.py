"""The extractor against our own archives, and against what nobody of ours would send."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tango_cloud.machine.extract import ArchiveRefused, extract
from tango_cloud.machine.frames import StreamBroken


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "job").mkdir()
    number = os.open(tmp_path / "job", os.O_RDONLY | os.O_DIRECTORY)
    yield number
    os.close(number)


def archive(
    *entries: tarfile.TarInfo | tuple[str, bytes], form: int = tarfile.GNU_FORMAT
) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                tar.addfile(info, io.BytesIO(entry[1]))
    stream.seek(0)
    return stream


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info


def test_files_with_modes_and_directories_on_the_way(tmp_path: Path, top: int) -> None:
    script = tarfile.TarInfo("a/b/run")
    script.mode = 0o755
    given = archive(special("empty", tarfile.DIRTYPE), script, ("a/x", b"1"), ("y", b"2" * 1000))
    assert extract(given.read, top) == 4
    job = tmp_path / "job"
    assert (job / "a/b/run").stat().st_mode & 0o777 == 0o755
    assert (job / "a/x").read_bytes() == b"1"
    assert (job / "y").read_bytes() == b"2" * 1000
    assert (job / "empty").is_dir()


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_refuses_all_but_files_and_directories(top: int, kind: bytes) -> None:
    with pytest.raises(ArchiveRefused, match="entry of type"):
        extract(archive(special("x", kind, "/etc/passwd")).read, top)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../x", "a//x", "./x", ".", "..", "a/.."])
def test_refuses_names_that_leave_or_wander(tmp_path: Path, top: int, name: str) -> None:
    with pytest.raises(ArchiveRefused, match="below the job directory"):
        extract(archive((name, b"x")).read, top)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "job"]


def test_refuses_a_name_twice_and_a_file_as_directory(top: int) -> None:
    with pytest.raises(ArchiveRefused, match="twice"):
        extract(archive(("x", b"1"), ("x", b"2")).read, top)
    with pytest.raises(ArchiveRefused, match="not a directory"):
        extract(archive(("x2", b"1"), ("x2/y", b"2")).read, top)


def test_never_goes_through_a_link_that_is_already_there(tmp_path: Path, top: int) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "job/dir").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "job/file").symlink_to(tmp_path / "elsewhere/file")
    for name in ("dir/x", "file"):
        with pytest.raises(ArchiveRefused):
            extract(archive((name, b"x")).read, top)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_refuses_other_kinds_of_tar(top: int, form: int) -> None:
    with pytest.raises(ArchiveRefused):
        extract(archive(("x", b"1"), form=form).read, top)


def test_refuses_a_damaged_header(top: int) -> None:
    damaged = bytearray(archive(("x", b"1")).getvalue())
    damaged[0] ^= 1
    with pytest.raises(ArchiveRefused, match="checksum"):
        extract(io.BytesIO(damaged).read, top)


@pytest.mark.parametrize("length", [0, 100, 512, 700, 1024])
def test_notices_a_stream_that_ends_early(top: int, length: int) -> None:
    whole = archive(("x", b"1" * 600)).getvalue()
    with pytest.raises(StreamBroken):
        extract(io.BytesIO(whole[:length]).read, top)
