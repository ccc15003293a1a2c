"""What Terraform itself costs a wave, and what each way to cut that saves, one at a time.

Ten minutes on two cores.
"""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from bench import report
from bench.deployment import PREFIX, fleet_of
from bench.ec2_ways import Ec2Way, terraform_of
from bench.memory import watched
from bench.provisioning_aws import IMAGE, emulated_ec2
from bench.series import Series
from bench.ways import OurWay
from tango_cloud.core.model import Shape
from tango_cloud.core.settings import Settings
from tango_cloud.terraform import command
from tango_cloud.terraform.workspace import Workspace, Workspaces

ROUNDS: Mapping[int, int] = {1: 3, 10: 1}
WIDE = 50
AS_IT_IS = "as it is"
_WAVE = "0" * 12
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds, processor seconds of Terraform and its plugins, and the peak of their memory and
    this process', in bytes."""

    seconds: float
    processor: float
    memory: int


Variants = Mapping[str, Callable[[], Cost]]


class Wave(Ec2Way):
    """Applies our wave module as `Stacks` does, and removes what it made directly."""

    def __init__(self, settings: Settings, shape: Shape) -> None:
        super().__init__(settings, shape)
        self._root = Path(tempfile.mkdtemp(dir=self.folder, prefix="costs-"))
        self._terraform = terraform_of(self._root, self.scratch())
        self._environment = dict(self._provider.environment())
        self._parallelism = settings.wave.parallelism
        self.workspace = self.initialised()
        self._stack = self._root
        self._inputs: Mapping[str, object] = {}

    def initialised(self, plugin_cache: Path | None = None) -> Workspace:
        """A new working directory; by default with the plugin cache that the others have."""
        environment = dict(self._environment)
        if plugin_cache is not None:
            environment["TF_PLUGIN_CACHE_DIR"] = str(plugin_cache)
        workspaces = Workspaces(self.scratch(), self._terraform)
        return workspaces.open("aws", "wave", environment=environment)

    def init_again(self) -> None:
        self._terraform.run(command.init(), self.workspace.folder, environment=self._environment)

    def apply(
        self,
        count: int,
        workspace: Workspace | None = None,
        *,
        parallelism: int | None = None,
        **more: str,
    ) -> None:
        """A new wave of so many machines; `more` is added to Terraform's environment."""
        requests = [self.order()[0] for _ in range(count)]
        self._stack = self.scratch()
        self._inputs = {
            "deployment": PREFIX,
            "wave": _WAVE,
            "machines": self._provider.wave_machines(requests),
            "envelope": self.envelope,
        }
        chosen = workspace or self.workspace
        replace(chosen, environment=self._environment | more).apply(
            self._stack,
            self._inputs,
            {"user_data": {request.uid: request.user_data for request in requests}},
            parallelism=parallelism or self._parallelism,
        )

    def apply_again(self, *, refresh: bool) -> None:
        """An apply that finds nothing to do."""
        self.workspace.apply(
            self._stack, self._inputs, parallelism=self._parallelism, refresh=refresh
        )

    def scratch(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._root))


@dataclass(frozen=True, slots=True)
class KeptPlugin:
    """A plugin that goes on between applies; `address` is TF_REATTACH_PROVIDERS for it."""

    pid: int
    address: str

    def processor(self) -> float:
        used = psutil.Process(self.pid).cpu_times()
        return used.user + used.system


def main() -> None:
    report.say("## What Terraform costs a wave")
    with emulated_ec2() as (emulation, settings):
        if emulation is None or settings is None:
            return
        with fleet_of(settings) as fleet:
            report.progress("the envelope")
            first = OurWay(fleet, Shape(IMAGE))
            first.make(1)
            first.remove()
            _tables(Wave(settings, Shape(IMAGE)), emulation.pid)


def _tables(wave: Wave, emulation: int) -> None:
    often = ", ".join(f"{rounds} (a wave of {count})" for count, rounds in ROUNDS.items())
    report.say(
        f"On the emulated EC2, with our module `aws/wave`, run as we run it; medians of {often} "
        "rounds in turns. One thing is changed at a time. Seconds until Terraform returns, of "
        "which the plugin waits ten after each creation; processor seconds of Terraform and its "
        "plugins; the peak of their memory and the benchmark's own (proportional sets). Plugins "
        "come from a mirror on this host, which a working directory links: a download is not "
        "in the figures."
    )
    with _kept_alive(wave) as kept:
        for count, rounds in ROUNDS.items():
            variants = _variants(wave, count, emulation, kept)
            _table(f"a wave of {count}", _measure(wave, variants, rounds))

    def cost(step: Callable[[], object]) -> Cost:
        return _cost([step], {emulation})

    wide: Variants = {
        AS_IT_IS: lambda: cost(lambda: wave.apply(WIDE)),
        "`-parallelism=10`, Terraform's own": lambda: cost(
            lambda: wave.apply(WIDE, parallelism=10)
        ),
    }
    _table(f"a wave of {WIDE}", _measure(wave, wide, 1))
    wave.apply(10)
    still: Variants = {
        AS_IT_IS: lambda: cost(lambda: wave.apply_again(refresh=False)),
        "`-refresh=true`": lambda: cost(lambda: wave.apply_again(refresh=True)),
    }
    measured = _measure(wave, still, ROUNDS[1], keep=True)
    _table("nothing to do, ten machines there", measured)
    wave.remove()


def _variants(wave: Wave, count: int, emulation: int, kept: KeptPlugin) -> Variants:
    def cost(*steps: Callable[[], object]) -> Cost:
        return _cost(steps, {emulation, kept.pid})

    def with_kept() -> Cost:
        before = kept.processor()
        found = _cost([lambda: wave.apply(count, TF_REATTACH_PROVIDERS=kept.address)], {emulation})
        return replace(found, processor=found.processor + kept.processor() - before)

    return {
        AS_IT_IS: lambda: cost(lambda: wave.apply(count)),
        "`init` before each wave": lambda: cost(wave.init_again, lambda: wave.apply(count)),
        "a new working directory for each wave": lambda: cost(
            lambda: wave.apply(count, wave.initialised())
        ),
        "the same, and no plugin cache": lambda: cost(
            lambda: wave.apply(count, wave.initialised(wave.scratch()))
        ),
        "`GOGC=400`": lambda: cost(lambda: wave.apply(count, GOGC="400")),
        "the plugin kept alive": with_kept,
    }


def _cost(steps: Sequence[Callable[[], object]], others: Collection[int]) -> Cost:
    """Of the steps together; `others` are processes that are not theirs, with all they started."""
    with watched(but=others) as peak:
        began, used = time.monotonic(), _children_processor()
        for step in steps:
            step()
        seconds, processor = time.monotonic() - began, _children_processor() - used
    return Cost(seconds, processor, peak.bytes)


def _children_processor() -> float:
    """Of all that this process started and that has ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _measure(
    wave: Wave, variants: Variants, rounds: int, *, keep: bool = False
) -> Mapping[str, Cost]:
    seconds, processor, memory = Series(), Series(), Series()
    names = list(variants)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            report.progress(f"{name}, round {number + 1}")
            cost = variants[name]()
            seconds.add(name, cost.seconds)
            processor.add(name, cost.processor)
            memory.add(name, cost.memory)
            if not keep:
                wave.remove()
    return {
        name: Cost(seconds.median(name), processor.median(name), int(memory.median(name)))
        for name in names
    }


def _table(what: str, measured: Mapping[str, Cost]) -> None:
    base = measured[AS_IT_IS]
    report.table(
        [what, "seconds", "", "processor s", "", "MiB", ""],
        [
            [
                name,
                f"{cost.seconds:.1f}",
                f"{cost.seconds - base.seconds:+.1f}",
                f"{cost.processor:.1f}",
                f"{cost.processor - base.processor:+.1f}",
                f"{cost.memory / _MIB:,.0f}",
                f"{(cost.memory - base.memory) / _MIB:+,.0f}",
            ]
            for name, cost in measured.items()
        ],
    )


@contextmanager
def _kept_alive(wave: Wave) -> Iterator[KeptPlugin]:
    """A plugin in its debug mode, which is for measuring only; killed at the end."""
    plugins = ".terraform/providers/*/hashicorp/aws/*/*/terraform-provider-aws*"
    (plugin,) = wave.workspace.folder.glob(plugins)
    process = subprocess.Popen(
        [str(plugin), "-debug"],
        # It leaves its socket behind when it is killed.
        env=os.environ | {"TMPDIR": str(wave.scratch())},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            name, _, value = line.strip().partition("=")
            if name == "TF_REATTACH_PROVIDERS":
                yield KeptPlugin(process.pid, value.strip("'"))
                return
        raise RuntimeError("the plugin did not say where it answers")
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    report.say(report.host())
    main()
