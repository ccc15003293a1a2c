"""What a machine sends as artifacts that is not ours any more, and where they are put."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tango_cloud.core.errors import InputError, MachineUnreachable, OutputError
from tango_cloud.machine.packing import MAX_DEPTH
from tango_cloud.transports import artifacts
from tango_cloud.transports.artifacts import check, outcome, unpack
from tango_cloud.transports.protocol import Artifact, Artifacts, ArtifactStatus, RunOutcome


def archive(*entries: tuple[str, bytes, bytes]) -> bytes:
    """Of names, types and contents; as our own are, with nothing behind its end."""
    stream = io.BytesIO()
    for name, kind, content in entries:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.linkname = kind, len(content), "/etc/passwd"
        stream.write(info.tobuf(tarfile.GNU_FORMAT))
        stream.write(content + bytes(-len(content) % 512))
    return stream.getvalue() + bytes(1024)


FILE = ("file", tarfile.REGTYPE, b"content")


def refused(sent: bytes, folder: Path, limit: int = 1000) -> None:
    (folder / "local").mkdir()
    (folder / "local/before").touch()
    with pytest.raises(MachineUnreachable, match="artifacts that are none"):
        unpack([sent], folder / "local", limit)
    assert [path.name for path in folder.rglob("*")] == ["local", "before"]


@pytest.mark.parametrize(
    "entry",
    [
        ("link", tarfile.SYMTYPE, b""),
        ("link", tarfile.LNKTYPE, b""),
        ("fifo", tarfile.FIFOTYPE, b""),
        ("device", tarfile.CHRTYPE, b""),
        ("../out", tarfile.REGTYPE, b"x"),
        ("/out", tarfile.REGTYPE, b"x"),
        ("file", tarfile.REGTYPE, b"again"),
        ("file/below", tarfile.REGTYPE, b"x"),
        ("large", tarfile.REGTYPE, bytes(994)),
        ("d/" * MAX_DEPTH + "deep", tarfile.REGTYPE, b""),
    ],
)
def test_what_our_machines_never_send(tmp_path: Path, entry: tuple[str, bytes, bytes]) -> None:
    refused(archive(FILE, entry), tmp_path)


def test_more_entries_than_our_machines_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "MAX_ENTRIES", 2)
    refused(archive(*[("d", tarfile.DIRTYPE, b"")] * 3), tmp_path)


@pytest.mark.parametrize("sent", [archive(FILE)[:-1], archive(FILE)[:700], archive(FILE) + b"x"])
def test_an_archive_that_ends_early_or_late(tmp_path: Path, sent: bytes) -> None:
    refused(sent, tmp_path)


def test_the_directory_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "local/old").mkdir(parents=True)
    unpack(iter([archive(FILE)]), tmp_path / "local", 7)
    assert [path.name for path in (tmp_path / "local").iterdir()] == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["local"]


@pytest.mark.parametrize("kind", ["file", "link", "no parent"])
def test_what_is_in_the_way_stays(tmp_path: Path, kind: str) -> None:
    local = tmp_path / "local"
    if kind == "file":
        local.touch()
    elif kind == "link":
        local.symlink_to(tmp_path)
    else:
        local = local / "local"
    before = sorted(tmp_path.iterdir())
    pieces = iter([archive(FILE), b"", b""])
    with pytest.raises(OutputError):
        unpack(pieces, local, 7)
    assert sorted(tmp_path.iterdir()) == before
    assert next(pieces, None) is None, "the connection is out of step"


def test_a_machine_that_sends_without_end(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1 << 20)

    (tmp_path / "local").touch()
    with pytest.raises(MachineUnreachable, match="more artifacts"):
        unpack(endless(), tmp_path / "absent/local", 7)


@pytest.mark.parametrize(
    ("paths", "faults"),
    [
        (("a", "b/c", "b2"), 0),
        (("", "/a", "../a", "b/../c", "d/..", "e//f", "g\0"), 7),
        (("a", "a", "a/b", "a/b/c"), 1 + 1 + 2),
        (tuple(map(str, range(1001))), 1),
    ],
)
def test_what_may_be_asked_for(paths: tuple[str, ...], faults: int) -> None:
    if not faults:
        check(Artifacts(paths, 1))
        return
    with pytest.raises(InputError) as caught:
        check(Artifacts(paths, 1))
    assert len(caught.value.faults) == faults


@pytest.mark.parametrize(("paths", "limit"), [(("a",), 0), (("a",), -1)])
def test_a_limit_that_lets_nothing_through(paths: tuple[str, ...], limit: int) -> None:
    with pytest.raises(InputError, match="artifact limit"):
        check(Artifacts(paths, limit))


def test_what_became_of_them_goes_by_the_names_asked_for() -> None:
    told = asdict(RunOutcome(0, False, False, 1.0, 1.0, 1, 1, "limits"))
    assert outcome(told, Artifacts()).artifacts == ()
    became = [["fetched", 1, 2, 3], ["missing", 0, 0, 0]]
    assert outcome({**told, "artifacts": became}, Artifacts(("a", "b"))).artifacts == (
        Artifact("a", ArtifactStatus.FETCHED, files=1, bytes=2, left_out=3),
        Artifact("b", ArtifactStatus.MISSING),
    )


@pytest.mark.parametrize(
    "told", [[], [["fetched", 0, 0, 0]] * 2, [["stolen", 0, 0, 0]], [["fetched", 0, 0, 0, 0]], 1]
)
def test_what_a_machine_tells_that_is_not_ours_any_more(told: Any) -> None:
    whole = asdict(RunOutcome(0, False, False, 1.0, 1.0, 1, 1, "limits"))
    with pytest.raises(MachineUnreachable, match="no outcome"):
        outcome({**whole, "artifacts": told}, Artifacts(("a",)))
