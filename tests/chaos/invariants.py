"""What holds after one pass of `reconcile`, whatever happened before. Written once, used by all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tango_cloud.core.ledger import Ledger
from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import Machine

from ..deployment import Deployment

AT_ONCE = {
    "TANGO_CLOUD_RECONCILE__MINIMUM_AGE_SECONDS": "0",
    "TANGO_CLOUD_RECONCILE__RECHECK_SECONDS": "0",
}


def reconcile(deployment: Deployment, *options: str) -> Sequence[Mapping[str, Any]]:
    done = deployment.run("reconcile", "--json", *options, **AT_ONCE)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def assert_agreed(deployment: Deployment) -> Sequence[Machine]:
    """Live machines = ledger; nothing else bears our tag; states follow; nothing is left to do.
    Returns what lives on.
    """
    again = reconcile(deployment)
    assert not again, f"a second pass finds {again}"
    ledger = Ledger(f"sqlite:///{deployment.state / 'ledger.sqlite3'}", deployment.state)
    try:
        machines = ledger.machines.all_live(deployment.prefix)
        assert not ledger.waves.applying(deployment.prefix)
    finally:
        ledger.close()
    assert not [m for m in machines if m.state in {State.CREATING, State.DESTROYING}]
    made = [m for m in machines if m.state is not State.REQUESTED]
    assert sorted(m.instance_id for m in made) == sorted(deployment.instances())
    assert {path.name for path in deployment.waves()} == {m.wave for m in made}
    return machines


def assert_no_job_ran_unasked(ran: Path, journal: Path) -> None:
    """As often as jobs ran, somebody had asked for one."""
    asked = sum(line.endswith(" runJob begins") for line in _lines(journal))
    assert len(_lines(ran)) <= asked


def _lines(file: Path) -> Sequence[str]:
    return file.read_text().splitlines() if file.exists() else []
