"""Jobs for the tests: a Makefile and files, put together where they are used."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Container, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from tango_cloud.transports.protocol import InputFile, RunLimits, RunOutcome, Session


def limits(**changes: Any) -> RunLimits:
    return RunLimits(**{"wall_seconds": 20.0, "output_bytes": 1_000_000, **changes})


Files = Mapping[str, str | bytes]


def write(folder: Path, files: Files, executable: Container[str] = ()) -> list[InputFile]:
    """The files, as input for a job; those named in `executable` may be run."""
    inputs = []
    for number, (name, content) in enumerate(files.items()):
        path = folder / f"input-{number}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o755 if name in executable else 0o644)
        inputs.append(InputFile(path, name))
    return inputs


def recipe(*lines: str) -> str:
    """A Makefile whose target runs the shell commands, one after another."""
    return "all:\n" + "".join(f"\t@{line.replace('$', '$$')}\n" for line in lines)


class Keeper:
    """Keeps a session to one machine from test to test, and makes a new one when a test broke it:
    that is what callers do, and connecting takes longer than most tests."""

    def __init__(self, connect: Callable[[], Session]) -> None:
        self._connect = connect
        self._session: Session | None = None

    def session(self) -> Session:
        if self._session is None or not self._session.alive():
            self.close()
            self._session = self._connect()
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


class Runner:
    """Runs jobs in a session, with a folder on this side."""

    def __init__(self, session: Session, folder: Path, seconds: float = 20.0) -> None:
        """`seconds` is the wall time of a job that asks for none."""
        self.session = session
        self.folder = folder
        self._seconds = seconds
        self.output = folder / "output"

    def put(self, *lines: str, files: Files = MappingProxyType({})) -> None:
        self.session.put(write(self.folder, {"Makefile": recipe(*lines), **files}, ("script",)))

    def run(
        self, *lines: str, files: Files = MappingProxyType({}), **changes: Any
    ) -> tuple[RunOutcome, bytes]:
        """The job's outcome, and its output with the header line."""
        self.put(*lines, files=files)
        outcome = self.session.run(limits(**{"wall_seconds": self._seconds, **changes}))
        self.session.get(self.output)
        return outcome, self.output.read_bytes()

    def says(self, *lines: str, files: Files = MappingProxyType({}), **changes: Any) -> str:
        """What the job printed, without the header line."""
        output = self.run(*lines, files=files, **changes)[1]
        return output.decode(errors="replace").partition("\n")[2]


def marker() -> str:
    """A word for a command line, by which a process is found wherever it went."""
    return "marked-" + secrets.token_hex(8)


def marked(word: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(word in part for part in command):
            found.append(process)
    return found


Find = Callable[[str], Collection[object]]


def wait_until_gone(word: str, seconds: float = 5.0, find: Find = marked) -> None:
    deadline = time.monotonic() + seconds
    while left := find(word):
        assert time.monotonic() < deadline, f"left running: {left}"
        time.sleep(0.02)


def wait_until_there(word: str, seconds: float = 10.0, find: Find = marked) -> None:
    deadline = time.monotonic() + seconds
    while not find(word):
        assert time.monotonic() < deadline, f"never ran: {word}"
        time.sleep(0.02)
