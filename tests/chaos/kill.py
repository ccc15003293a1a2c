"""Kills a life at every step of it, and holds what one `reconcile` leaves against the invariants.

`python -m tests.chaos.kill [--every N] [--report FILE]`: all points, or every Nth, on `local`.
"""

from __future__ import annotations

import argparse
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from ..deployment import Deployment, make_deployment
from .invariants import assert_agreed, assert_no_job_ran_unasked, reconcile
from .life import IDS
from .points import DIE, RECORD

SIDES = ("before", "after")
_SECONDS = 120
_PASSES = 60
_WRONG = "WRONG"


@dataclass(frozen=True, slots=True)
class Death:
    """A life that was to die at `point`: whether it did, and what the first pass mended."""

    point: str
    died: bool
    mended: Sequence[str]


class Scene:
    """A deployment whose lives are ended, one after another."""

    def __init__(self, deployment: Deployment, port: int) -> None:
        self.deployment = deployment
        self._folder = deployment.folder / "life"
        self._folder.mkdir()
        self.ran = self._folder / "ran"
        makefile = f"all:\n\t@bash -c 'echo ran >/dev/tcp/127.0.0.1/{port}'\n"
        (self._folder / "Makefile").write_text(makefile)

    def record(self) -> Sequence[str]:
        """The points of a life that nobody ends, in their order."""
        file = self._folder / "points"
        file.unlink(missing_ok=True)
        self._live(**{RECORD: str(file)})
        assert reconcile(self.deployment) == [], "a whole life leaves nothing to mend"
        return file.read_text().splitlines()

    def kill(self, side: str, point: str) -> Death:
        """End a life there; raises AssertionError when something is wrong after one pass."""
        for file in (self.ran, self._folder / "journal"):
            file.unlink(missing_ok=True)
        died = self._live(**{DIE: f"{side} {point}"}) < 0
        # A pass does not touch a wave whose Terraform still runs: that ends by itself.
        for _ in range(_PASSES):
            rows = reconcile(self.deployment)
            if not any((row["kind"], row["action"]) == ("abandoned", "wait") for row in rows):
                break
        left = assert_agreed(self.deployment)
        assert_no_job_ran_unasked(self.ran, self._folder / "journal")
        if left:
            self.end()
        return Death(f"{side} {point}", died, [f"{r['kind']}: {r['action']}" for r in rows])

    def end(self) -> None:
        done = self.deployment.run("destroy", "--all")
        assert done.returncode == 0, done.stderr
        reconcile(self.deployment)

    def _live(self, **more: str) -> int:
        """How it ended."""
        argv = [sys.executable, "-m", "tests.chaos.life"]
        argv += [str(self.deployment.state), str(self._folder)]
        with (self._folder / "log").open("a") as log:
            return subprocess.run(
                argv,
                env=self.deployment.environment | more,
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=log,
                timeout=_SECONDS,
                check=False,
            ).returncode


@contextmanager
def scene(folder: Path, **more: str) -> Iterator[Scene]:
    """Jobs tell that they run by a connection to this process, which writes it down."""
    ran = folder / "life" / "ran"

    class Told(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            with ran.open("a") as file:
                file.write("job\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Told) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        made = Scene(make_deployment(folder, **more), server.server_address[1])
        try:
            yield made
        finally:
            server.shutdown()
            made.deployment.clean()


def main(every: int, report: Path | None) -> int:
    lines, failed = [], 0
    with ExitStack() as stack:
        one = stack.enter_context(fresh_scene())
        first, later = one.record(), one.record()
        only_first = set(first) - set(later)
        chosen = [(side, point) for point in dict.fromkeys([*first, *later]) for side in SIDES]
        chosen = chosen[::every]
        _say(f"{len({*first, *later})} points, {len(chosen)} deaths")
        for number, (side, point) in enumerate(chosen, 1):
            with fresh_scene() if point in only_first else nullcontext(one) as where:
                told = _told(where, side, point)
            failed += told.startswith(_WRONG)
            lines.append(f"{side} {point}: {told}")
            _say(f"{number}/{len(chosen)} {lines[-1]}")
        one.deployment.assert_nothing_left()
    if report is not None:
        report.write_text("\n".join(lines) + "\n")
    _say(f"{len(chosen)} deaths of {len(IDS)} machines' lives, {failed} with something wrong")
    return int(failed > 0)


def _told(one: Scene, side: str, point: str) -> str:
    """What came of it, in words."""
    try:
        death = one.kill(side, point)
    except AssertionError as error:
        one.end()
        return f"{_WRONG}: {error}"
    mended = "; ".join(death.mended) or "nothing to mend"
    return mended if death.died else "not reached in this life"


@contextmanager
def fresh_scene() -> Iterator[Scene]:
    with (
        tempfile.TemporaryDirectory(prefix="tango-chaos-") as folder,
        scene(Path(folder)) as made,
    ):
        yield made


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N")
    parser.add_argument("--report", type=Path, metavar="FILE")
    given = parser.parse_args()
    sys.exit(main(given.every, given.report))
