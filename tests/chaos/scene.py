"""A deployment whose lives are ended, one after another, and what is asked of each end."""

from __future__ import annotations

import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..deployment import Deployment
from .clouds import Cloud
from .invariants import (
    assert_agreed,
    assert_jobs_are_as_told,
    assert_nothing_lives,
    reconcile,
)
from .life import IDS, makefile
from .points import DIE, RECORD, Side

_LIFE_SECONDS = 180
_PASSES = 60
_TOLD = 3000
"""Characters."""


@dataclass(frozen=True, slots=True)
class Death:
    """A life that was to end at a side of a point: whether it did, and what was mended after."""

    point: str
    died: bool
    mended: Sequence[str]


class Scene:
    """Jobs tell that they run by a connection to `address` (host, port)."""

    def __init__(self, deployment: Deployment, address: tuple[str, int]) -> None:
        self.deployment = deployment
        self.folder = deployment.folder / "life"
        self.folder.mkdir()
        self._journal = self.folder / "journal"
        host, port = address
        for number in IDS:
            tell = f"bash -c 'echo {number} >/dev/tcp/{host}/{port}'"
            makefile(self.folder, number).write_text(f"all:\n\t@{tell}\n\t@sleep 0.2\n")

    def record(self) -> Sequence[str]:
        """The deaths that can be died in a life that nobody ends, in their order."""
        file = self.folder / "points"
        self._begin(file)
        self._live(**{RECORD: str(file)})
        assert reconcile(self.deployment) == [], "a whole life leaves nothing to mend"
        self._assert_jobs()
        assert_nothing_lives(self.deployment)
        return file.read_text().splitlines()

    def kill(self, point: str) -> Death:
        """End a life there; raises AssertionError when something is wrong after one pass."""
        self._begin()
        died = self._live(**{DIE: point}) < 0
        rows = self._reconcile()
        left = assert_agreed(self.deployment)
        self._assert_jobs()
        if left and point.startswith(Side.BEFORE):
            self._destroy()
        elif left:
            self._live_on()
        assert_nothing_lives(self.deployment)
        return Death(point, died, sorted({f"{row['kind']}: {row['action']}" for row in rows}))

    def told(self) -> str:
        """The end of what lives have logged, and the journal of the last."""
        texts = [file.read_text() for file in (self.folder / "log", self._journal) if file.exists()]
        return "\n".join(text[-_TOLD:] for text in texts)

    def start_afresh(self) -> None:
        """After something went wrong, whatever it was."""
        self.deployment.clean()
        self._live()

    def _destroy(self) -> None:
        done = self.deployment.run("destroy", "--all")
        assert done.returncode == 0, done.stderr

    def _live_on(self) -> None:
        """The same life once more, from its beginning: what is left is of use to it."""
        self._journal.unlink(missing_ok=True)
        self._live()
        answers = [line.split()[1:] for line in self._journal.read_text().splitlines()]
        wrong = [answer for answer in answers if answer[1] not in {"begins", "0", "None"}]
        assert not wrong, f"in the next life: {wrong}"

    def _begin(self, *files: Path) -> None:
        for file in (self.folder / "ran", self._journal, *files):
            file.unlink(missing_ok=True)

    def _reconcile(self) -> Sequence[Mapping[str, Any]]:
        """A pass does not touch a wave whose Terraform still runs: that ends by itself."""
        for _ in range(_PASSES):
            rows = reconcile(self.deployment)
            if not any((row["kind"], row["action"]) == ("abandoned", "wait") for row in rows):
                return rows
        raise AssertionError(f"a wave is never finished: {rows}")

    def _assert_jobs(self) -> None:
        assert_jobs_are_as_told(self.folder / "ran", self._journal)

    def _live(self, **more: str) -> int:
        """How it ended."""
        argv = [sys.executable, "-m", "tests.chaos.life"]
        argv += [str(self.deployment.state), str(self.folder)]
        with (self.folder / "log").open("a") as log:
            return subprocess.run(
                argv,
                env=self.deployment.environment | more,
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=log,
                timeout=_LIFE_SECONDS,
                check=False,
            ).returncode


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = 64


@contextmanager
def listening(address: str, ran: Path) -> Iterator[tuple[str, int]]:
    """Jobs tell that they run by a line to this host and port; all of these are then in `ran`."""

    class Told(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            number = self.rfile.readline()
            with ran.open("ab") as file:
                file.write(number)

    with _Server((address, 0), Told) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield address, server.server_address[1]
        finally:
            server.shutdown()


@contextmanager
def scene(cloud: Cloud, folder: Path, prefix: str = "tango") -> Iterator[Scene]:
    with listening(cloud.address, folder / "life" / "ran") as address:
        made = Scene(cloud.make(folder, prefix), address)
        try:
            yield made
        finally:
            made.deployment.clean()
