from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tango_cloud.machine.output import ELISION, Output


def collect(folder: Path, limit: int | None, pieces: list[bytes]) -> bytes:
    output = Output(str(folder / "spool"), str(folder / "ring"), limit)
    for piece in pieces:
        output.write(piece)
    assert output.total == sum(len(piece) for piece in pieces)
    output.finish()
    output.close()
    return (folder / "spool").read_bytes()


def expected(limit: int | None, whole: bytes) -> bytes:
    if limit is None or len(whole) <= limit:
        return whole
    last = limit - limit // 2
    return whole[: limit // 2] + ELISION + whole[len(whole) - last :]


@given(
    limit=st.one_of(st.none(), st.integers(0, 60)),
    pieces=st.lists(st.binary(max_size=50), max_size=12),
)
def test_keeps_the_first_and_the_last_half(
    tmp_path_factory: pytest.TempPathFactory, limit: int | None, pieces: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("output")
    assert collect(folder, limit, pieces) == expected(limit, b"".join(pieces))


def test_the_line_between_the_halves_is_tangos(tmp_path: Path) -> None:
    assert collect(tmp_path, 4, [b"abcdefgh"]) == b"ab\n...[excess bytes elided]...\ngh"


def test_shows_its_beginning_while_more_comes(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "spool"), str(tmp_path / "ring"), 6)
    output.write(b"abc")
    assert (tmp_path / "spool").read_bytes() == b"abc"
    output.write(b"defgh")
    assert output.kept == 6
    assert output.read(2, 100) == b"cdef"
    output.close()


def test_starts_empty_where_an_older_output_stands(tmp_path: Path) -> None:
    collect(tmp_path, 10, [b"x" * 100])
    assert collect(tmp_path, 10, [b"new"]) == b"new"
