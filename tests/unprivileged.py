"""Another user, who has nothing but a folder, may not even read our home, and runs the checkout."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .deployment import CHECKOUT

_SYSTEM_PYTHON = Path("/usr/bin/python3")
_UID = 54321


@dataclass(frozen=True)
class User:
    folder: Path

    @property
    def python(self) -> str:
        """An interpreter that has our packages, and can be run by this user."""
        return str(self.folder / "venv" / "bin" / "python")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
        }

    def command(self, *argv: str) -> list[str]:
        ids = ["--reuid", str(_UID), "--regid", str(_UID), "--clear-groups"]
        return ["setpriv", *ids, *argv]


@contextlib.contextmanager
def another_user() -> Iterator[User]:
    """Skips the test where there can be none."""
    if os.geteuid() != 0:
        pytest.skip("all tests run without root here")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not _SYSTEM_PYTHON.exists() or version not in str(_SYSTEM_PYTHON.resolve()):
        pytest.skip(f"no Python {version} that other users may run")
    user = User(Path(tempfile.mkdtemp(prefix="tango-unprivileged-")))
    try:
        os.chown(user.folder, _UID, _UID)
        make = [str(_SYSTEM_PYTHON), "-m", "venv", "--without-pip", str(user.folder / "venv")]
        subprocess.run(make, check=True)
        packages = next(path for path in sys.path if path.endswith("site-packages"))
        (installed,) = (user.folder / "venv").glob("lib/*/site-packages")
        (installed / "all.pth").write_text(f"{CHECKOUT}\n{packages}\n")
        reads = user.command("test", "-r", str(CHECKOUT / "tests"), "-a", "-r", packages)
        if subprocess.run(reads).returncode:
            pytest.skip("the checkout may not be read by other users")
        yield user
    finally:
        shutil.rmtree(user.folder)
