"""Many callers of `initializeVM` at once, in several processes: all are served, none twice."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tango_cloud.core.ledger import Ledger
from tango_cloud.core.lifecycle import State

from ..callers import call_from_processes

PROCESSES, THREADS, SHARED = 4, 25, 5


def test_all_are_served_and_none_twice(tmp_path: Path) -> None:
    """Five identities are asked for in every process."""
    own = [range(100 * (n + 1), 100 * (n + 1) + THREADS - SHARED) for n in range(PROCESSES)]
    calls = call_from_processes(tmp_path, [[*range(SHARED), *ids] for ids in own])
    assert len(calls) == PROCESSES * THREADS
    assert {(call.initialized, call.waited) for call in calls} == {(0, 0)}

    machines: defaultdict[int, set[str]] = defaultdict(set)
    for call in calls:
        machines[call.id].add(call.instance_id)
    assert all(len(instances) == 1 for instances in machines.values()), "one for an identity"
    assert len(set.union(*machines.values())) == len(machines) == SHARED + sum(map(len, own))

    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}", tmp_path)
    booked = ledger.machines.all_live("tango")
    assert {machine.state for machine in booked} == {State.READY}
    assert {machine.instance_id for machine in booked} == set.union(*machines.values())
    assert not ledger.waves.applying("tango")
    for machine in booked:
        events = [event.event for event in ledger.machines.history("tango", machine.uid)]
        assert events.count(State.CREATING) == 1, "claimed by one wave"
    made = {path.name for path in (tmp_path / "cloud").iterdir()}
    assert made == {machine.instance_id for machine in booked}
    ledger.close()
