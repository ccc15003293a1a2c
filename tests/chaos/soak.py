"""Half an hour of random load and faults against one process: nothing may grow, nothing may stay.

`python -m tests.chaos.soak [--minutes 30] [--seed N] [--on CLOUD] [--report FILE] [--trace]`
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..deployment import CHECKOUT, Deployment
from ..google_plugin import Unavailable
from ..waiting import wait_until
from .clouds import CLOUDS, Cloud
from .faults import Faults
from .invariants import assert_agreed, assert_jobs_are_as_told, assert_nothing_lives
from .measures import SLOPE_MIB, Held, Measures, changes, least, measure, more_objects, slope
from .scene import listening
from .soaked import Look, Soaked, render

SETTINGS = {
    "TANGO_CLOUD_RECONCILE__EVERY_SECONDS": "3",
    "TANGO_CLOUD_RECONCILE__MINIMUM_AGE_SECONDS": "5",
    "TANGO_CLOUD_RECONCILE__RECHECK_SECONDS": "0.5",
    "TANGO_CLOUD_MACHINE__GONE_SECONDS": "60",
}
POOLED = {"local": 0, "aws": 32, "gcp": 90}
"""Connections that a process may keep to its cloud: the clients' pools."""
_WARM_SECONDS = 90.0
"""Of load and faults before the baseline, in a soak that is long enough."""
_PAUSE_SECONDS = (1.0, 9.0)
"""Between two faults."""
_ANSWER_SECONDS = 60
_REST_SECONDS = 300
"""A life waits for its machine, and for the end of it."""
_SETTLE_SECONDS = 120
"""For the background passes to find and mend all that the faults have left."""
_LOOKS = 20
"""At rest: a background pass comes every few seconds, and goes."""
_LOOK_SECONDS = 0.3
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
"""What threads have freed is used again by others: memory that grows is then memory in use."""
_TRACED_FRAMES = "12"


class Patient:
    """The process that is looked at. Its input is orders, its output the answers."""

    def __init__(
        self, deployment: Deployment, arguments: Sequence[str], log: Path, *, trace: bool
    ) -> None:
        more = _ENVIRONMENT | ({"PYTHONTRACEMALLOC": _TRACED_FRAMES} if trace else {})
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.patient", *arguments],
                env=deployment.environment | more,
                cwd=CHECKOUT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                # A terminal's interrupt is for us, who let it come to rest then.
                start_new_session=True,
            )
        self.process = psutil.Process(self._process.pid)

    def order(self, what: str, seconds: float = _ANSWER_SECONDS) -> Any:
        """Its answer. Fails without one after `seconds`; its log then tells where it was."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked
        assert answers
        assert self._process.poll() is None, f"it has ended with {self._process.returncode}"
        asked.write(f"{what}\n")
        asked.flush()
        if not select.select([answers], [], [], seconds)[0]:
            self._process.send_signal(signal.SIGUSR1)
            raise AssertionError(f"no answer to {what!r} within {seconds} s")
        answer = answers.readline()
        assert answer, f"it ended instead of an answer to {what!r}"
        return json.loads(answer)

    def end(self) -> None:
        """By itself; fails if it does not."""
        assert self._process.stdin
        self._process.stdin.close()
        status = self._process.wait(_ANSWER_SECONDS)
        assert status == 0, f"it ended with {status}"

    def discard(self) -> None:
        """However it is."""
        with self._process:
            self._process.kill()


class Soak:
    """Of one process, whose lives leave their journal in `folder`."""

    def __init__(
        self, deployment: Deployment, patient: Patient, folder: Path, soaked: Soaked
    ) -> None:
        self._deployment = deployment
        self._patient = patient
        self._folder = folder
        self._soaked = soaked
        self._chance = random.Random(soaked.seed)
        self._faults = Faults(deployment, patient.process, self._chance)
        self._begun = time.monotonic()

    def run(self, minutes: float) -> None:
        """Ctrl-C ends the load, and what was measured until then counts. Fails when the process
        does not come to rest."""
        self._load(min(_WARM_SECONDS, 30 * minutes))
        before, objects = self._look_at_rest("baseline")
        self._begun = time.monotonic()
        with contextlib.suppress(KeyboardInterrupt):
            self._load(60 * minutes, looking=True)
        after, more = self._look_at_rest("end")
        self._soaked.wrong += changes(before, after, POOLED[self._soaked.cloud])
        if after.processes > before.processes:
            self._soaked.wrong += [f"still there: {line}" for line in self._others()]
        self._soaked.wrong += more_objects(objects, more)
        self._judge_slope()

    def _load(self, seconds: float, *, looking: bool = False) -> None:
        """Lives, and a fault every now and then. However it ends, no life is lived after it."""
        self._patient.order("live")
        try:
            end = time.monotonic() + seconds
            due = time.monotonic() + 60
            while (now := time.monotonic()) < end:
                if looking and now >= due:
                    due += 60
                    self._look(self._measure())
                time.sleep(min(self._chance.uniform(*_PAUSE_SECONDS), end - now))
                if struck := self._faults.strike():
                    self._soaked.struck[struck] += 1
        finally:
            self._faults.end()
            self._patient.order("rest", _REST_SECONDS)

    def _look_at_rest(self, moment: str) -> tuple[Measures, Mapping[str, int]]:
        """What it holds and which objects it has, once nothing is there any more: the process' own
        passes see to that."""
        try:
            wait_until(self._nothing_is_there, _SETTLE_SECONDS, look=0.5)
        except AssertionError as error:
            left = [*self._deployment.instances(), *self._deployment.waves()]
            raise AssertionError(f"never at rest: {error}: {self._measure()}, {left}") from error
        objects = self._objects()  # which leaves no garbage
        looks = []
        for _ in range(_LOOKS):
            looks.append(self._measure())
            time.sleep(_LOOK_SECONDS)
        self._look(least(looks), moment)
        return least(looks), objects

    def _nothing_is_there(self) -> bool:
        now = self._measure()
        half_removed = any((self._deployment.state / "local" / "removing").glob("*"))
        left = now.machines or now.alive or now.states or now.host_keys or half_removed
        return not left and now.processes == 1

    def _others(self) -> Sequence[str]:
        """The command lines of what else runs for the deployment."""
        found = []
        for process in self._deployment.processes():
            with contextlib.suppress(psutil.Error):
                if process.pid != self._patient.process.pid:
                    found.append(f"{process.status()} {' '.join(process.cmdline())[:300]}")
        return found

    def _measure(self) -> Measures:
        held = Held(**self._patient.order("memory"))
        return measure(self._deployment, self._patient.process, held)

    def _look(self, measures: Measures, at_rest: str = "") -> None:
        answers = self._soaked.answers = answers_in(self._folder / "journal")
        done = {
            "lives": sum(times for what, times in answers.items() if "initializeVM" in what),
            "jobs": sum(times for what, times in answers.items() if "runJob" in what),
            "faults": self._soaked.struck.total(),
        }
        minutes = (time.monotonic() - self._begun) / 60
        self._soaked.looks.append(Look(minutes, measures, done, at_rest))
        _say(str(self._soaked.looks[-1]))

    def _objects(self) -> Mapping[str, int]:
        told = self._patient.order("look")
        self._soaked.traced = told["traced"]
        counts: Mapping[str, int] = told["counts"]
        return counts

    def _judge_slope(self) -> None:
        loaded = [look for look in self._soaked.looks if not look.at_rest]
        grows = slope([one.minutes for one in loaded], [one.measures.own_memory for one in loaded])
        self._soaked.slope = grows
        if grows > SLOPE_MIB:
            self._soaked.wrong.append(f"memory: {grows:.2f} MiB more each minute")


def soak(
    cloud: Cloud,
    folder: Path,
    log: Path,
    soaked: Soaked,
    minutes: float,
    *,
    trace: bool = False,
) -> None:
    """All that came of it is in `soaked`, what the process said in `log`."""
    deployment = cloud.make(folder, "soak")
    deployment.environment |= SETTINGS
    life = folder / "life"
    life.mkdir()
    with listening(cloud.address, life / "ran") as (host, port):
        arguments = [str(life), host, str(port), str(soaked.seed)]
        patient = Patient(deployment, arguments, log, trace=trace)
        try:
            with _noting(soaked):
                Soak(deployment, patient, life, soaked).run(minutes)
                patient.end()
                assert_agreed(deployment)
                assert_nothing_lives(deployment)
        finally:
            patient.discard()
            deployment.clean()
    with _noting(soaked):
        assert_jobs_are_as_told(life / "ran", life / "journal")
    soaked.wrong += [what for what in soaked.answers if what.startswith("output")]
    soaked.wrong += unexpected(log.read_text())


@contextlib.contextmanager
def _noting(soaked: Soaked) -> Iterator[None]:
    try:
        yield
    except (AssertionError, psutil.Error, subprocess.TimeoutExpired) as error:
        soaked.wrong.append(str(error) or type(error).__name__)
    except KeyboardInterrupt:
        soaked.wrong.append("interrupted before there was anything to compare")


def answers_in(journal: Path) -> Counter[str]:
    """How often each step of the lives had each answer."""
    words = [line.split() for line in journal.read_text().splitlines()]
    return Counter(f"{step} {answer}" for _, step, answer in words if answer != "begins")


def unexpected(log: str) -> Sequence[str]:
    """The last line of each traceback: what failed in a way that nobody had thought of."""
    _, *tracebacks = log.split("Traceback (most recent call last):\n")
    lines = [one.splitlines() for one in tracebacks]
    return [next((line for line in one if not line.startswith(" ")), "") for one in lines]


def main(name: str, minutes: float, seed: int, report: Path | None, *, trace: bool) -> int:
    soaked = Soaked(name, seed)
    _say(f"{name}, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="tango-soak-") as place:
        folder = Path(place)
        log = folder / "log" if report is None else report.with_suffix(".process.log")
        (folder / "soak").mkdir()
        try:
            with CLOUDS[name](folder / "cloud") as cloud:
                soak(cloud, folder / "soak", log, soaked, minutes, trace=trace)
        except (pytest.skip.Exception, Unavailable) as reason:
            soaked.wrong.append(f"not tried: {reason}")
    text = render(soaked)
    _say(text)
    if report is not None:
        report.write_text(text)
    return int(bool(soaked.wrong))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # Whoever started it behind himself, in a shell, has had it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--on", choices=CLOUDS, default="local", metavar="CLOUD")
    parser.add_argument("--report", type=Path, metavar="FILE")
    parser.add_argument("--trace", action="store_true", help="tell where memory went")
    given = parser.parse_args()
    sys.exit(main(given.on, given.minutes, given.seed, given.report, trace=given.trace))
