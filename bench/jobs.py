"""The job that is measured: twenty small files, one of them a Makefile that does nothing."""

from __future__ import annotations

from pathlib import Path

FILES = 20
FILE_BYTES = 2000
_MAKEFILE = "all:\n\t@true\n"


def write_job(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "Makefile").write_text(_MAKEFILE)
    for number in range(1, FILES):
        (folder / f"file{number:02}.txt").write_text("0123456789abcde\n" * (FILE_BYTES // 16))
    return folder
