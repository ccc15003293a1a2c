"""From "N machines wanted" to "N machines ready" and back on an emulated EC2, and where the seconds
go. Half an hour on two cores; `--up-to N` leaves out what is larger.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from bench import report
from bench.deployment import PREFIX, fleet_of, in_force
from bench.ec2_ways import OneApply, RunInstances, SeparateApplies
from bench.memory import watched
from bench.series import Series
from bench.ways import OurWay, Way
from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import Shape, WaveState
from tango_cloud.core.settings import Settings
from tango_cloud.orchestration.fleet import Fleet

sys.path.insert(0, str(Path(__file__).parents[1] / "localstack"))
from emulation.client import Emulation, Fault, Unavailable

OURS, RAW, ONE = "ours", "raw RunInstances", "one apply by hand"
SERIAL, FOUR = "an apply each", "an apply each, four at a time"
ROUNDS: Mapping[int, int] = {1: 3, 10: 2, 50: 1, 200: 1}
LIMITS: Mapping[str, int] = {SERIAL: 10, FOUR: 50}
"""Beyond it they would take half an hour."""
ONCE = frozenset({SERIAL, FOUR})
"""Of more than one machine measured once: minutes each."""
BOOT_SECONDS = 20.0
"""About what an instance of EC2's takes; LocalStack's run at once."""
IMAGE = "bench"
_MIB = 1 << 20
_STEPS = (
    "written down to claimed",
    "claimed to the first instance",
    "the first to the last instance",
    "the last instance to all ready",
)
_HIDDEN = "all ready to the end of Terraform"


def main(up_to: int = max(ROUNDS)) -> None:
    report.say("## From N machines wanted to N machines ready, on EC2 emulated by LocalStack")
    with emulated_ec2() as (emulation, settings):
        if emulation is None or settings is None:
            return
        with _ways(settings) as ways:
            counts = {n: rounds for n, rounds in ROUNDS.items() if n <= up_to}
            _compare(emulation, ways, counts)
            _booting(emulation, ways, counts)
            _memory(emulation, ways, max(counts))


@contextmanager
def emulated_ec2() -> Iterator[tuple[Emulation, Settings] | tuple[None, None]]:
    """An emulated EC2 with an image, and a deployment's settings for it; nothing where it cannot be
    had, which is told."""
    with tempfile.TemporaryDirectory(prefix="tango-bench-ec2-") as folder:
        try:
            emulation = Emulation.start(Path(folder))
        except Unavailable as error:
            report.say(f"Left out: {error}")
            yield None, None
            return
        try:
            emulation.register_image(IMAGE)
            # Large: the emulated EC2 gives no address twice, and hundreds of machines come and go.
            _, half = ipaddress.IPv4Network(emulation.network).subnets(prefixlen_diff=1)
            ours = {"TANGO_CLOUD_PROVIDER": "aws", "TANGO_CLOUD_AWS__NETWORK_CIDR": str(half)}
            with in_force({**emulation.environment, **ours}) as settings:
                yield emulation, settings
        finally:
            emulation.stop()


@contextmanager
def _ways(settings: Settings) -> Iterator[Mapping[str, Way]]:
    with fleet_of(settings) as fleet:
        shape = Shape(IMAGE)
        ours = _Watched(fleet, shape)
        report.progress("the first machine: init, envelope")
        ours.make(1)
        ours.remove()
        yield {
            OURS: ours,
            ONE: OneApply(settings, shape),
            RAW: RunInstances(settings, shape),
            FOUR: SeparateApplies(settings, shape, 4),
            SERIAL: SeparateApplies(settings, shape, 1),
        }


def _compare(emulation: Emulation, ways: Mapping[str, Way], counts: Mapping[int, int]) -> None:
    kind = "a network namespace with an sshd" if emulation.interface else "a program on loopback"
    rounds = ", ".join(f"{rounds} (N = {count})" for count, rounds in counts.items())
    report.say(
        f"Seconds, medians of {rounds} rounds, on {emulation.backend}, each instance {kind}. "
        "Ready means the same everywhere: found by tag, connected with the expected host key, and "
        "that key replaced by one made on the machine. `one apply by hand`: a plain configuration "
        "with `for_each`, `-parallelism=N`, `-refresh=false`, waited for once Terraform has "
        "returned, and removed by `terraform destroy`. `an apply each`: a state and an apply for "
        "each machine, measured once where there are several. `raw RunInstances`: boto3 asks for "
        "all at once, one call each because each has tags and user data of its own; there is no "
        "Terraform. Terraform is initialised and the envelope there before."
    )
    ready, first, gone, steps = Series(), Series(), Series(), Series()
    for count, rounds_ in counts.items():
        for number in range(rounds_):
            names = [name for name in ways if count <= LIMITS.get(name, count)]
            names = [n for n in names if not (number and count > 1 and n in ONCE)]
            for name in names[number % len(names) :] + names[: number % len(names)]:
                report.progress(f"{count} machines, {name}, round {number + 1}")
                _measure(ways[name], count, f"{name} {count}", ready, first, gone)
            ours = ways[OURS]
            assert isinstance(ours, _Watched)
            ours.account(steps, count)
    report.say("All ready:")
    _table(ready, counts, tuple(ways), ((OURS, ONE), (OURS, RAW)))
    report.say("The first one ready:")
    _table(first, counts, (OURS, ONE, RAW), ((OURS, RAW),))
    report.say("All gone, from N ready ones:")
    _table(gone, counts, (OURS, ONE, RAW), ((OURS, ONE),))
    report.say("Where the seconds of ours go (medians):")
    report.table(
        ["step", *(f"N = {count}" for count in counts)],
        [
            [step, *(f"{steps.median(f'{step} {count}'):.2f}" for count in counts)]
            for step in (*_STEPS, _HIDDEN)
        ],
    )


def _measure(way: Way, count: int, name: str, ready: Series, first: Series, gone: Series) -> None:
    way.begin()
    began = time.monotonic()
    try:
        with ready.timing(name):
            way.make(count)
        first.add(name, way.first - began)
        way.settle()
    finally:
        with gone.timing(name):
            way.remove()


def _booting(emulation: Emulation, ways: Mapping[str, Way], counts: Mapping[int, int]) -> None:
    report.say(
        f"The same when each instance takes {BOOT_SECONDS:.0f} s to boot, as EC2's do (in order of "
        "magnitude); the first one ready, and all:"
    )
    ready, first, gone = Series(), Series(), Series()
    emulation.order(Fault("boot-delay", delay=BOOT_SECONDS))
    few = {count: 1 for count in counts if count <= 50}
    for count in few:
        for name in (OURS, RAW):
            report.progress(f"{count} machines that boot slowly, {name}")
            _measure(ways[name], count, f"{name} {count}", ready, first, gone)
    emulation.clear()
    _table(first, few, (OURS, RAW), ((OURS, RAW),))
    _table(ready, few, (OURS, RAW), ((OURS, RAW),))


def _memory(emulation: Emulation, ways: Mapping[str, Way], count: int) -> None:
    report.say(
        f"Peak memory of all that is started for {count} machines: orchestrator, Terraform, "
        f"plugins (proportional sets). `{FOUR}` has its peak with the first four, so 12 do:"
    )
    rows = []
    for name, machines in ((OURS, count), (ONE, count), (FOUR, min(12, count))):
        report.progress(f"memory of {name}")
        try:
            with watched(but={emulation.pid}) as peak:
                ways[name].make(machines)
        finally:
            ways[name].remove()
        rows.append([name, str(machines), f"{peak.bytes / _MIB:,.0f}"])
    report.table(["way", "N", "MiB"], rows)


def _table(
    series: Series,
    counts: Mapping[int, int],
    names: Sequence[str],
    ratios: Sequence[tuple[str, str]],
) -> None:
    rows = []
    for count in counts:
        cells = [_cell(series, f"{name} {count}") for name in names]
        for name, other in ratios:
            ratio = series.median(f"{name} {count}") / series.median(f"{other} {count}")
            cells.append(report.times(ratio))
        rows.append([str(count), *cells])
    report.table(["N", *names, *(f"{name} / {other}" for name, other in ratios)], rows)


def _cell(series: Series, name: str) -> str:
    return f"{series.median(name):.2f}" if series.count(name) else "-"


class _Watched(OurWay):
    """Ours, with the time of each step from the machines' own histories."""

    def __init__(self, fleet: Fleet, shape: Shape) -> None:
        super().__init__(fleet, shape)
        self._names: list[str] = []
        self._ready = 0.0
        self._ended = 0.0

    def make(self, count: int) -> None:
        super().make(count)
        self._ready = time.time()
        self._names = [str(key.id) for key in self._keys]

    def settle(self) -> None:
        ledger = self._fleet._ledger
        waves = {machine.wave for machine in ledger.machines.all_live(PREFIX)}
        while any(
            found.state is WaveState.APPLYING
            for wave in waves
            if (found := ledger.waves.get(wave)) is not None
        ):
            time.sleep(0.05)
        self._ended = time.time()

    def account(self, steps: Series, count: int) -> None:
        times: dict[str, list[float]] = {}
        for name in self._names:
            for event in self._fleet.history(name):
                times.setdefault(event.event, []).append(event.at)
        moments = [
            min(times[State.REQUESTED]),
            min(times[State.CREATING]),
            min(times[State.STARTING]),
            max(times[State.STARTING]),
            max(times[State.READY]),
        ]
        for step, (before, after) in zip(_STEPS, pairwise(moments), strict=True):
            steps.add(f"{step} {count}", after - before)
        steps.add(f"{_HIDDEN} {count}", self._ended - self._ready)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--up-to", type=int, default=max(ROUNDS), metavar="N")
    chosen = parser.parse_args()
    report.say(report.host())
    main(chosen.up_to)
