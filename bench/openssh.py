"""The way stock Tango does a job over SSH, with the commands of OpenSSH.

A process and a connection of its own for each step and each file: `ssh` to make the directory, one
`scp` for each input file, `ssh` to run, `scp` for the output. Left out, to its advantage: the polls
of one second between the steps, and the driver with its limits (make is run as it is).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tango_cloud.core.model import Endpoint
from tango_cloud.transports.protocol import InputFile

INSTALL = "apt-get install openssh-client"
_OPTIONS = (
    *("-F", "none"),
    *("-o", "BatchMode=yes"),
    *("-o", "StrictHostKeyChecking=no"),
    *("-o", "UserKnownHostsFile=/dev/null"),
    *("-o", "GSSAPIAuthentication=no"),
    *("-o", "LogLevel=ERROR"),
)


def missing() -> str:
    """What to do before this can be measured; empty when nothing is missing."""
    absent = [program for program in ("ssh", "scp") if shutil.which(program) is None]
    return f"{' and '.join(absent)} not installed ({INSTALL})" if absent else ""


class StockClient:
    """Runs jobs on one machine."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._options = (*_OPTIONS, "-i", endpoint.client_key_file)
        self._port = str(endpoint.port)
        self._login = f"{endpoint.username}@{endpoint.address}"
        home = self._ssh("pwd").strip()
        self._folder, self._output = f"{home}/stock", f"{home}/stock-output"
        self._scp_options = ("-q", *_protocol(), *self._options, "-P", self._port)

    def run_job(self, files: Sequence[InputFile], output: Path) -> None:
        self._ssh(f"rm -rf {self._folder}; mkdir {self._folder}")
        for file in files:
            self._scp(str(file.local), f"{self._login}:{self._folder}/{file.destination}")
        self._ssh(f"make -C {self._folder} >{self._output} 2>&1")
        self._scp(f"{self._login}:{self._output}", str(output))

    def _ssh(self, command: str) -> str:
        return _run(["ssh", *self._options, "-p", self._port, self._login, command])

    def _scp(self, source: str, target: str) -> None:
        _run(["scp", *self._scp_options, source, target])


def _protocol() -> Sequence[str]:
    """scp's own protocol, the only one when Tango was written, and as fast as the newer SFTP. That
    one fails on asyncssh's server, which ends the subsystem without an exit status.
    """
    asked = subprocess.run(["scp", "-O"], check=False, capture_output=True, text=True)
    return () if "unknown option" in asked.stderr else ("-O",)


def _run(argv: Sequence[str]) -> str:
    done = subprocess.run(
        argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout
