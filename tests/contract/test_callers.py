"""Many callers of `initializeVM` at once, in several processes: all are served, none twice."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tango_cloud.core.lifecycle import State

from ..callers import DEPLOYMENT, callers, cloud_in
from ..deployment import ledger_in

PROCESSES, THREADS, SHARED = 4, 25, 5


def test_all_are_served_none_twice_and_all_are_gone_in_the_end(tmp_path: Path) -> None:
    """Five identities are asked for, and destroyed, in every process."""
    own = [range(100 * (n + 1), 100 * (n + 1) + THREADS - SHARED) for n in range(PROCESSES)]
    ledger = ledger_in(tmp_path)
    with callers([[*range(SHARED), *ids] for ids in own], tmp_path) as processes:
        calls = processes.initialize()
        assert len(calls) == PROCESSES * THREADS
        assert {(call.initialized, call.waited) for call in calls} == {(0, 0)}

        machines: defaultdict[int, set[str]] = defaultdict(set)
        for call in calls:
            machines[call.id].add(call.instance_id)
        assert all(len(instances) == 1 for instances in machines.values()), "one for an identity"
        distinct = set.union(*machines.values())
        assert len(distinct) == len(machines) == SHARED + sum(map(len, own))

        booked = ledger.machines.all_live(DEPLOYMENT)
        assert {machine.state for machine in booked} == {State.READY}
        assert {machine.instance_id for machine in booked} == distinct
        for machine in booked:
            events = [event.event for event in ledger.machines.history(DEPLOYMENT, machine.uid)]
            assert events.count(State.CREATING) == 1, "claimed by one wave"
        assert cloud_in(tmp_path).running().keys() == distinct

        processes.destroy()
    assert not ledger.waves.applying(DEPLOYMENT)
    assert not cloud_in(tmp_path).running()
    assert not ledger.machines.all_live(DEPLOYMENT)
    uids = {machine.uid for machine in booked}
    assert ledger.machines.instance_ids(uids, {State.GONE}).keys() == uids
    ledger.close()
