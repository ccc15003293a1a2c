"""What Terraform itself costs a wave, and what each way to cut that saves, one at a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import report
from bench.deployment import PREFIX, fleet_of
from bench.ec2_ways import Ec2Way
from bench.provisioning_aws import IMAGE, emulated_ec2
from bench.series import Series
from bench.ways import OurWay
from tango_cloud.core.model import MachineRequest, Shape
from tango_cloud.core.settings import Settings
from tango_cloud.terraform.binary import resolve
from tango_cloud.terraform.environment import find_mirror, terraform_environment, write_cli_config
from tango_cloud.terraform.modules import copy_module, modules_root

ROUNDS = 3
AS_IT_IS = "as it is"
_WAVE = "0" * 12
_READY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds, and processor seconds of Terraform and its plugins."""

    seconds: float
    processor: float


class Wave(Ec2Way):
    """Applies our wave module in an initialised folder, and removes what it made directly."""

    def __init__(self, settings: Settings, shape: Shape) -> None:
        super().__init__(settings, shape)
        self._root = Path(tempfile.mkdtemp(dir=self.folder, prefix="costs-"))
        configuration = write_cli_config(self._root / "cli.tfrc", find_mirror())
        self.environment = terraform_environment(
            os.environ, cli_config=configuration, plugin_cache=None
        )
        self.folder = self.fresh()

    def fresh(self) -> Path:
        """A working directory, initialised."""
        folder = Path(tempfile.mkdtemp(dir=self._root)) / "module"
        copy_module(modules_root() / "aws" / "wave", folder)
        self.run(["init"], folder)
        return folder

    def apply(
        self,
        count: int,
        *,
        folder: Path | None = None,
        parallelism: int = 200,
        refresh: bool = False,
        **more: str,
    ) -> Cost:
        """A new wave of so many machines."""
        where = folder or self.folder
        (where / "terraform.tfstate").unlink(missing_ok=True)
        requests = [self.order()[0] for _ in range(count)]
        self._write(where, requests)
        return self._apply(where, parallelism, refresh, more)

    def nothing(self, *, refresh: bool) -> Cost:
        """An apply that finds nothing to do."""
        return self._apply(self.folder, 200, refresh, {})

    def init(self) -> Cost:
        return self.run(["init"], self.folder)

    def run(self, words: Sequence[str], folder: Path, **more: str) -> Cost:
        began = time.monotonic()
        process = subprocess.Popen(
            [*resolve().argv, *words, "-input=false", "-no-color"],
            cwd=folder,
            env=self.environment | more,
            stdout=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"terraform {words[0]} failed")
        return Cost(time.monotonic() - began, used.ru_utime + used.ru_stime)

    def _apply(
        self, folder: Path, parallelism: int, refresh: bool, more: Mapping[str, str]
    ) -> Cost:
        options = [
            f"-parallelism={parallelism}",
            f"-refresh={str(refresh).lower()}",
            "-auto-approve",
        ]
        return self.run(["apply", *options], folder, **more)

    def _write(self, folder: Path, requests: Sequence[MachineRequest]) -> None:
        variables: dict[str, Any] = {
            "deployment": PREFIX,
            "wave": _WAVE,
            "machines": self._provider.wave_machines(requests),
            "envelope": self.envelope,
            "user_data": {request.uid: request.user_data for request in requests},
        }
        (folder / "terraform.tfvars.json").write_text(json.dumps(variables))


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
            wave = Wave(settings, Shape(IMAGE))
            _tables(wave)


def _tables(wave: Wave) -> None:
    report.say(
        f"On the emulated EC2, with our module `aws/wave` and its options; medians of {ROUNDS} "
        "rounds in turns. Seconds until Terraform returns, of which the plugin waits ten after "
        "each creation; processor seconds of Terraform and its plugins. One thing is changed at a "
        "time."
    )
    with _kept_alive(wave) as reattached:

        def init_first() -> Cost:
            began, applied = wave.init(), wave.apply(1)
            return Cost(began.seconds + applied.seconds, began.processor + applied.processor)

        def cold() -> Cost:
            began = time.monotonic()
            folder = wave.fresh()
            applied = wave.apply(1, folder=folder)
            shutil.rmtree(folder.parent)
            return Cost(time.monotonic() - began, applied.processor)

        variants: Mapping[str, Callable[[], Cost]] = {
            AS_IT_IS: lambda: wave.apply(1),
            "`init` before each wave": init_first,
            "a new working directory for each wave": cold,
            "`GOGC=400`": lambda: wave.apply(1, GOGC="400"),
            "the plugin kept alive": lambda: wave.apply(1, TF_REATTACH_PROVIDERS=reattached),
        }
        _table("a wave of one", _measure(wave, variants, ROUNDS))
    wide: Mapping[str, Callable[[], Cost]] = {
        AS_IT_IS: lambda: wave.apply(50),
        "`-parallelism=10`, Terraform's own": lambda: wave.apply(50, parallelism=10),
    }
    _table("a wave of 50", _measure(wave, wide, 1))
    wave.apply(10)
    still: Mapping[str, Callable[[], Cost]] = {
        AS_IT_IS: lambda: wave.nothing(refresh=False),
        "`-refresh=true`": lambda: wave.nothing(refresh=True),
    }
    _table("nothing to do, ten machines there", _measure(wave, still, ROUNDS, keep=True))
    wave.remove()


def _measure(
    wave: Wave, variants: Mapping[str, Callable[[], Cost]], rounds: int, *, keep: bool = False
) -> Mapping[str, tuple[float, float]]:
    seconds, processor = Series(), Series()
    names = list(variants)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            report.progress(f"{name}, round {number + 1}")
            cost = variants[name]()
            seconds.add(name, cost.seconds)
            processor.add(name, cost.processor)
            if not keep:
                wave.remove()
    return {name: (seconds.median(name), processor.median(name)) for name in names}


def _table(what: str, measured: Mapping[str, tuple[float, float]]) -> None:
    seconds, processor = measured[AS_IT_IS]
    report.table(
        [what, "seconds", "", "processor s", ""],
        [
            [
                name,
                f"{one:.1f}",
                f"{one - seconds:+.1f}",
                f"{other:.1f}",
                f"{other - processor:+.1f}",
            ]
            for name, (one, other) in measured.items()
        ],
    )


@contextmanager
def _kept_alive(wave: Wave) -> Iterator[str]:
    """The value of TF_REATTACH_PROVIDERS for a plugin that goes on between applies."""
    (plugin,) = wave.folder.glob(".terraform/providers/*/hashicorp/aws/*/*/terraform-provider-aws*")
    process = subprocess.Popen(
        [str(plugin), "-debug"],
        # It leaves its socket behind when it is killed.
        env=wave.environment | {"TMPDIR": str(wave.folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            name, _, value = line.strip().partition("=")
            if name == "TF_REATTACH_PROVIDERS":
                yield value.strip("'")
                return
        raise RuntimeError("the plugin did not say where it answers")
    finally:
        process.kill()
        process.wait(_READY_SECONDS)


if __name__ == "__main__":
    report.say(report.host())
    main()
