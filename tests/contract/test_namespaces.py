"""What a sandbox of our own making shows of the machine's directories."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts"),
]

BIND = """
import errno, sys
from tango_cloud.machine import namespaces, syscalls

source, target = sys.argv[1:]
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
syscalls.mount("tmpfs", f"{source}/a disk", "tmpfs", 0)
namespaces._bind(source, target, True)
for folder in (target, f"{target}/a disk"):
    try:
        open(f"{folder}/left-behind", "w")
        print("written")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def test_what_is_mounted_below_a_read_only_directory_is_read_only_too(tmp_path: Path) -> None:
    """A data disk that anybody may write to, say, from job to job."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "a disk").mkdir(parents=True)
    target.mkdir()
    argv = [sys.executable, "-c", BIND, str(source), str(target)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["EROFS", "EROFS"]
