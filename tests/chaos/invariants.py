"""What holds after one pass of `reconcile`, whatever happened before. Written once, used by all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import Machine, Wave

from ..deployment import Deployment, ledger_in
from ..waiting import wait_until
from .journal import lines

AT_ONCE = {
    "TANGO_CLOUD_RECONCILE__MINIMUM_AGE_SECONDS": "0",
    "TANGO_CLOUD_RECONCILE__RECHECK_SECONDS": "0",
}
_LINGER_SECONDS = 5
"""A process that has been killed, or whose connection has broken, needs a moment to end."""


def reconcile(deployment: Deployment, *options: str) -> Sequence[Mapping[str, Any]]:
    """One pass that takes nothing for too young to be judged. Fails when it could not mend all."""
    done = deployment.run("reconcile", "--json", *options, **AT_ONCE)
    assert done.returncode == 0, done.stderr + done.stdout
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


@dataclass(frozen=True, slots=True)
class Picture:
    """A deployment at rest: what is on the books (machines, and waves that somebody applies), the
    uid of each instance that the cloud has, by its id, the waves that have a state, the uids whose
    host keys are kept."""

    booked: Sequence[Machine]
    applying: Sequence[Wave]
    instances: Mapping[str, str]
    states: Collection[str]
    host_keys: Collection[str]


def assert_consistent(picture: Picture) -> None:
    """Live machines = ledger; nothing else bears our tag; states and keys follow; nothing is under
    way."""
    assert not picture.applying
    going = [machine for machine in picture.booked if machine.state is State.DESTROYING]
    assert not going, f"still on their way out: {going}"
    made = [machine for machine in picture.booked if machine.state is not State.REQUESTED]
    shown = picture.instances
    assert sorted(shown.values()) == sorted(machine.uid for machine in made), picture
    # One whose instance nobody has looked at yet is on the books by its uid alone.
    known = {machine.instance_id: machine.uid for machine in made if machine.instance_id}
    assert known.items() <= shown.items(), picture
    assert set(picture.states) == {machine.wave for machine in made}, picture
    assert set(picture.host_keys) <= {machine.uid for machine in picture.booked}, picture


def assert_agreed(deployment: Deployment) -> Sequence[Machine]:
    """A second pass finds nothing, all is consistent, and none but machines' processes run. Returns
    what lives on.
    """
    again = reconcile(deployment)
    assert not again, f"a second pass finds {again}"
    picture = picture_of(deployment)
    assert_consistent(picture)
    assert_no_process_but(deployment, picture.instances)
    return picture.booked


def picture_of(deployment: Deployment) -> Picture:
    ledger = ledger_in(deployment.state)
    try:
        return Picture(
            ledger.machines.all_live(deployment.prefix),
            ledger.waves.applying(deployment.prefix),
            deployment.uids(),
            {path.name for path in deployment.waves()},
            host_keys_in(deployment.state / deployment.prefix),
        )
    finally:
        ledger.close()


def host_keys_in(folder: Path) -> Collection[str]:
    return {path.name for path in (folder / "known_hosts").glob("*")}


def assert_no_process_but(deployment: Deployment, instances: Mapping[str, str]) -> None:
    """None of ours runs but those of machines: no Terraform, no plugin, no machine that is gone."""

    def left() -> Sequence[str]:
        told = [_told(process) for process in deployment.processes()]
        return [line for line in told if line and not any(name in line for name in instances)]

    wait_until(lambda: not left(), _LINGER_SECONDS)


def assert_nothing_lives(deployment: Deployment) -> None:
    """As after `destroy --all`: nothing on the books, in the cloud, among the states, at work."""
    picture = picture_of(deployment)
    assert not picture.booked, picture
    assert not picture.applying, picture
    deployment.assert_nothing_left()


def assert_jobs_are_as_told(ran: Path, journal: Path) -> None:
    """`ran` has a line with the machine's number for each job that began; `journal` is a life's. No
    job ran that nobody had asked for, none ran twice, and each that was told as done has run.
    """
    begun, noted = Counter(lines(ran)), Counter(lines(journal))
    for number in {line.split()[0] for line in (*begun, *noted)}:
        asked, done = noted[f"{number} runJob begins"], noted[f"{number} runJob 0"]
        told = f"{number}: asked for {asked} times, ran {begun[number]}, told as done {done}"
        assert done <= begun[number] <= asked, told


def _told(process: psutil.Process) -> str:
    """Its command line; empty when it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
