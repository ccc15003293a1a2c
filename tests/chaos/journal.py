"""What processes that may be killed at any moment leave behind in writing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def note(file: Path, line: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def lines(file: Path) -> Sequence[str]:
    return file.read_text().splitlines() if file.exists() else []
