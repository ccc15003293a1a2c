"""From "N machines wanted" to "N machines ready" on an emulated EC2, and where the seconds go."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from bench import report
from bench.deployment import PREFIX, fleet_of, in_force
from bench.series import Series
from bench.ways import BareWay, OurWay, at_once
from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import Machine, MachineRequest, Shape, WaveState
from tango_cloud.core.settings import Settings
from tango_cloud.orchestration.fleet import Fleet

sys.path.insert(0, str(Path(__file__).parents[1] / "localstack"))
from emulation.client import Emulation, Unavailable

ROUNDS: Mapping[int, int] = {1: 3, 10: 3, 50: 3}
OURS, RAW = "ours", "raw RunInstances"
_IMAGE = "bench"
_STEPS = (
    "written down to claimed",
    "claimed to the first instance",
    "the first to the last instance",
    "the last instance to all ready",
)
_HIDDEN = "all ready to the end of Terraform"


def main() -> None:
    report.say("## From N machines wanted to N machines ready, on EC2 emulated by LocalStack")
    with tempfile.TemporaryDirectory(prefix="tango-bench-ec2-") as folder:
        try:
            emulation = Emulation.start(Path(folder))
        except Unavailable as error:
            report.say(f"Left out: {error}")
            return
        try:
            emulation.register_image(_IMAGE)
            _compare(emulation)
        finally:
            emulation.stop()


def _compare(emulation: Emulation) -> None:
    kind = "a network namespace with an sshd" if emulation.interface else "a program on loopback"
    report.say(
        "Seconds, medians of "
        + ", ".join(f"{rounds} (N = {count})" for count, rounds in ROUNDS.items())
        + f" rounds, on {emulation.backend}, each instance {kind}. "
        "Ready means the same everywhere: found by tag, connected with the expected host key, and "
        "that key replaced by one made on the machine. `raw RunInstances`: boto3 asks for all at "
        "once, one call each because each has tags and user data of its own, with the same "
        "launch template, listing and connection. Terraform is initialised and the envelope there "
        "before."
    )
    series, steps = Series(), Series()
    environment = {**emulation.environment, "TANGO_CLOUD_PROVIDER": "aws"}
    with in_force(environment) as settings, fleet_of(settings) as fleet:
        shape = Shape(_IMAGE)
        ours = _Watched(fleet, shape)
        report.progress("the first machine: init, envelope")
        ours.make(1)
        ours.remove()
        raw = _RunInstances(settings, shape)
        for count, rounds in ROUNDS.items():
            for number in range(rounds):
                report.progress(f"{count} machines on {emulation.backend}, round {number + 1}")
                ways = {OURS: ours, RAW: raw}
                for name in list(ways)[:: 1 if number % 2 else -1]:
                    way = ways[name]
                    try:
                        with series.timing(f"{name} {count}"):
                            way.make(count)
                    finally:
                        way.remove()
                ours.account(steps, count)
    rows = []
    for count in ROUNDS:
        mine, floor = series.median(f"{OURS} {count}"), series.median(f"{RAW} {count}")
        rows.append([str(count), f"{mine:.2f}", f"{floor:.2f}", report.times(mine / floor)])
    report.table(["N", OURS, RAW, f"{OURS} / {RAW}"], rows)
    report.say("Where the seconds of ours go (medians):")
    report.table(
        ["step", *(f"N = {count}" for count in ROUNDS)],
        [
            [step, *(f"{steps.median(f'{step} {count}'):.2f}" for count in ROUNDS)]
            for step in (*_STEPS, _HIDDEN)
        ],
    )


class _Watched(OurWay):
    """Ours, with the time of each step from the machines' own histories."""

    def __init__(self, fleet: Fleet, shape: Shape) -> None:
        super().__init__(fleet, shape)
        self._ready = 0.0
        self._ended = 0.0
        self._names: list[str] = []

    def make(self, count: int) -> None:
        super().make(count)
        self._ready = time.time()
        self._names = [str(key.id) for key in self._keys]

    def remove(self) -> None:
        waves = {machine.wave for machine in self._machines()}
        ledger = self._fleet._ledger
        while any(
            found.state is WaveState.APPLYING
            for wave in waves
            if (found := ledger.waves.get(wave)) is not None
        ):
            time.sleep(0.05)
        self._ended = time.time()
        super().remove()

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

    def _machines(self) -> Sequence[Machine]:
        return [entry.machine for entry in self._fleet.entries() if entry.machine is not None]


class _RunInstances(BareWay):
    """The floor: boto3 asks EC2, nothing is written down, no Terraform."""

    def __init__(self, settings: Settings, shape: Shape) -> None:
        super().__init__(settings, shape)
        envelope = settings.state_dir / PREFIX / "envelope" / "aws" / "envelope.json"
        self._envelope: Mapping[str, Any] = json.loads(envelope.read_text())
        self._ec2 = boto3.client(
            "ec2",
            region_name=os.environ["AWS_REGION"],
            config=Config(max_pool_connections=max(ROUNDS)),
        )

    def make(self, count: int) -> None:
        at_once(lambda _: self._make_one(), range(count))

    def _make_one(self) -> None:
        request, host_key = self.order()
        self._run(request)
        self.greet(request.uid, host_key)

    def _run(self, request: MachineRequest) -> None:
        machine: Any = self._provider.wave_machines([request])[request.uid]
        labels = [{"Key": key, "Value": text} for key, text in machine["tags"].items()]
        self._ec2.run_instances(
            MinCount=1,
            MaxCount=1,
            LaunchTemplate={"LaunchTemplateId": self._envelope["launch_template_id"]},
            ImageId=machine["image"],
            InstanceType=machine["instance_type"],
            SubnetId=self._envelope["subnets"][machine["zone"]],
            SecurityGroupIds=[self._envelope["security_group_id"]],
            UserData=request.user_data,
            TagSpecifications=[
                {"ResourceType": kind, "Tags": labels} for kind in ("instance", "volume")
            ],
        )


if __name__ == "__main__":
    report.say(report.host())
    main()
