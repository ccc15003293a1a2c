"""Reconciliation: cloud, ledger and states held against each other, and brought to agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from tango_cloud.core.errors import TangoCloudError
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.lifecycle import State
from tango_cloud.orchestration.findings import Action, Finding, Kind, View, compare, idle_states
from tango_cloud.orchestration.host_keys import HostKeys
from tango_cloud.orchestration.mending import Mending, Outcome
from tango_cloud.orchestration.site import Sites
from tango_cloud.orchestration.stacks import Stacks
from tango_cloud.orchestration.waves import Waves
from tango_cloud.providers.protocol import Strays

_PASSES = 4
"""Mending one thing shows the next: a wave that is finished, the machine that it has not made."""
_TWO_BEATS = 10.0
"""Seconds in which any living process is heard of twice."""
_SUSPECT = frozenset({Kind.ORPHAN, Kind.LOST, Kind.STATE, Kind.STRAY})
"""Known by what is absent from a list. They are looked at twice before anything is done."""


class Reconciler:
    """One deployment's. Safe beside other processes that work on the same deployment.

    `minimum_age` and `recheck` in seconds: how old an unknown thing must be, and how long it is
    between the two looks at a suspect.
    """

    def __init__(
        self,
        deployment: str,
        ledger: Ledger,
        sites: Sites,
        stacks: Stacks,
        waves: Waves,
        host_keys: HostKeys,
        mending: Mending,
        *,
        minimum_age: float,
        recheck: float,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._deployment = deployment
        self._ledger = ledger
        self._sites = sites
        self._stacks = stacks
        self._waves = waves
        self._host_keys = host_keys
        self._mending = mending
        self._minimum_age = minimum_age
        self._recheck = recheck
        self._clock = clock
        self._sleep = sleep
        self._silent: dict[str, float] = {}
        """Owners on other hosts that were looked at twice, and their last heartbeat."""

    def look(self) -> Sequence[Finding]:
        """What disagrees now. Changes nothing.

        Raises ProviderUnavailable or AuthenticationError when a cloud cannot be asked: what could
        not be listed never reads as absent.
        """
        findings = self._findings(self._minimum_age)
        if any(finding.kind in _SUSPECT and finding.open for finding in findings):
            self._sleep(self._recheck)
            again = {finding.what for finding in self._findings(self._minimum_age)}
            findings = [f for f in findings if f.kind not in _SUSPECT or f.what in again]
        return findings

    def run(self) -> Sequence[Outcome]:
        """Mend what disagrees. Raises as `look`; what goes wrong after that is in the outcomes."""
        outcomes: dict[tuple[Kind, str, str], Outcome] = {}
        for _ in range(_PASSES):
            findings = self.look()
            # What did not go in its time may take as long again, and all else would wait for it.
            late = {what for what, outcome in outcomes.items() if outcome.late}
            todo = [finding for finding in findings if finding.open and finding.what not in late]
            told = [
                Outcome(finding, finding.detail if finding.kind is Kind.STATES else "")
                for finding in findings
                if not finding.open
            ]
            for outcome in [*told, *self._mending.mend(todo)]:
                outcomes[outcome.finding.what] = outcome
            if not todo:
                break
        else:
            for finding in self.look():
                if finding.open:
                    outcomes.setdefault(finding.what, Outcome(finding, "still so; look again"))
        self._forget_host_keys()
        self._ledger.owners.forget_dead()
        return list(outcomes.values())

    def recover(self) -> Sequence[Outcome]:
        """Put on the books what the cloud has and they have not, and do nothing else: for a ledger
        that was lost. What cannot be used again is told. Raises as `look`."""
        unknown = [
            finding
            for finding in self._findings(minimum_age=0.0)
            if finding.kind in {Kind.ORPHAN, Kind.DAMAGED}
        ]
        adopted = self._mending.mend([f for f in unknown if f.action is Action.ADOPT])
        others = [f for f in unknown if f.action is not Action.ADOPT]
        return [*adopted, *(Outcome(replace(finding, action=Action.TELL)) for finding in others)]

    def _findings(self, minimum_age: float) -> list[Finding]:
        # Books after clouds: what is made meanwhile was booked before.
        listings = {name: site.inventory.fresh() for name, site in self._sites.items()}
        states, findings = self._states()
        machines = self._ledger.machines.all_live(self._deployment)
        waves = self._ledger.waves.applying(self._deployment)
        owners = {wave.owner for wave in waves} | {m.holder for m in machines if m.holder}
        dead = self._dead(owners)
        running = {wave.wave for wave in waves if self._waves.terraform_runs(wave)}
        live = {machine.uid for machine in machines}
        for name, instances in listings.items():
            uids = {instance.uid for instance in instances} - live
            view = View(
                provider=name,
                now=self._clock(),
                machines=[machine for machine in machines if machine.provider == name],
                instances=instances,
                states=states,
                past=self._ledger.machines.instance_ids(uids, {State.GONE}),
                dead=dead,
                applying={wave.wave: wave for wave in waves if wave.provider == name},
                running=running,
                keys={uid for uid in uids if self._host_keys.known(uid)},
            )
            findings += compare(view, minimum_age)
            findings += self._strays(name, minimum_age)
        needed = {machine.wave for machine in machines} | {wave.wave for wave in waves}
        needed |= {instance.wave for listing in listings.values() for instance in listing}
        findings += idle_states(states or {}, needed, self._provider_of, minimum_age)
        return findings

    def _dead(self, owners: Collection[str]) -> Collection[str]:
        """Those of these processes that are no more. Of one on another host only its heart can be
        heard, and its clock may be another: it is dead if it has not beaten since the last look."""
        known = self._ledger.owners
        dead = {owner for owner in owners if not known.alive(owner)}
        beats = {owner: known.heartbeat_elsewhere(owner) for owner in dead}
        far = {owner: beat for owner, beat in beats.items() if beat is not None}
        if far.items() - self._silent.items():
            self._sleep(_TWO_BEATS)
        still = {owner: known.heartbeat_elsewhere(owner) for owner in far}
        self._silent |= {owner: beat for owner, beat in far.items() if still[owner] == beat}
        return {owner for owner in dead if owner not in far or still[owner] == far[owner]}

    def _states(self) -> tuple[Mapping[str, float] | None, list[Finding]]:
        """The waves that have a state; None, and what is to be told, when that cannot be known:
        what can be judged without is mended all the same."""
        try:
            return self._stacks.waves(), []
        except TangoCloudError as error:
            place = self._sites.chosen[0]
            return None, [Finding(Kind.STATES, Action.TELL, place, "all states", str(error))]

    def _provider_of(self, wave: str) -> str:
        found = self._ledger.waves.get(wave)
        return found.provider if found is not None else self._sites.chosen[0]

    def _strays(self, name: str, minimum_age: float) -> Sequence[Finding]:
        provider = self._sites[name].provider
        if not isinstance(provider, Strays):
            return []
        findings = []
        for stray in provider.strays(self._deployment):
            action, detail = Action.DELETE, stray.kind
            if stray.created is not None:
                age = self._clock() - stray.created.timestamp()
                action = Action.WAIT if age < minimum_age else Action.DELETE
                detail = f"{stray.kind}, {age:.0f} s"
            findings.append(Finding(Kind.STRAY, action, name, stray.id, detail))
        return findings

    def _forget_host_keys(self) -> None:
        # Looked up after the clouds and before the books: a machine is booked before its key is
        # kept.
        kept = self._host_keys.uids()
        listed = {i.uid for site in self._sites.values() for i in site.inventory.last()}
        booked = {machine.uid for machine in self._ledger.machines.all_live(self._deployment)}
        self._host_keys.forget(kept - listed - booked)
