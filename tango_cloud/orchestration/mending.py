"""Mending: one step for each kind of disagreement, idempotent like all steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tango_cloud.core.errors import AuthenticationError, NotGoneInTime, TangoCloudError
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.lifecycle import Reason, State
from tango_cloud.orchestration.committer import Committer
from tango_cloud.orchestration.findings import Action, Finding
from tango_cloud.orchestration.fleet import Fleet
from tango_cloud.orchestration.host_keys import HostKeys
from tango_cloud.orchestration.site import Sites
from tango_cloud.orchestration.stacks import Stacks
from tango_cloud.orchestration.waves import Waves
from tango_cloud.providers.protocol import Strays

log = logging.getLogger(__name__)

_FIRST_LOOK, _LONGEST_PAUSE = 0.1, 5.0
_ANSWER_SECONDS = 2.0
"""How long a machine that seems to be lost has to answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finding and what became of it. `error` says why it could not be mended; `late` whether
    that is only that a machine was not gone in its time."""

    finding: Finding
    error: str = ""
    late: bool = False


class Mending:
    """`gone_seconds` is how long all that is removed in one go may take to be gone."""

    def __init__(
        self,
        ledger: Ledger,
        sites: Sites,
        stacks: Stacks,
        waves: Waves,
        committer: Committer,
        fleet: Fleet,
        host_keys: HostKeys,
        gone_seconds: float,
    ) -> None:
        self._ledger = ledger
        self._sites = sites
        self._stacks = stacks
        self._waves = waves
        self._committer = committer
        self._fleet = fleet
        self._host_keys = host_keys
        self._gone_seconds = gone_seconds
        self._steps: Mapping[Action, Callable[[Finding], None]] = {
            Action.FINISH: self._finish,
            Action.ADOPT: self._adopt,
            Action.STRIKE: self._strike,
            Action.DISCARD: self._discard,
            Action.DELETE: self._delete,
        }

    def mend(self, findings: Sequence[Finding]) -> Sequence[Outcome]:
        """All removals are asked for before the first is waited for."""
        removals = [finding for finding in findings if finding.action is Action.DESTROY]
        others = [finding for finding in findings if finding.action is not Action.DESTROY]
        outcomes = [_tried(self._steps[finding.action], finding) for finding in others]
        asked = [_tried(self._ask_to_go, finding) for finding in removals]
        deadline = time.monotonic() + self._gone_seconds
        for outcome in asked:
            if not outcome.error:
                outcome = _tried(partial(self._see_gone, deadline=deadline), outcome.finding)
            outcomes.append(outcome)
        return outcomes

    def _finish(self, finding: Finding) -> None:
        self._committer.finish(finding.subject)

    def _adopt(self, finding: Finding) -> None:
        instance = finding.instance
        keys = self._host_keys.known(instance.uid) if instance is not None else None
        if instance is None or keys is None:
            raise TangoCloudError("its host key is not known any more")
        if self._ledger.machines.adopt(instance, finding.provider, *keys) is None:
            raise TangoCloudError("another machine has its identity")
        self._ledger.waves.adopt(instance.wave, instance.key.deployment, finding.provider)

    def _strike(self, finding: Finding) -> None:
        machine = finding.machine
        if machine is None:
            return
        if self._fleet.answers(machine, _ANSWER_SECONDS):
            raise TangoCloudError("it answers, though the cloud does not show it")
        self._ledger.machines.move(machine.uid, State.GONE, Reason.LOST, finding.detail)
        self._waves.remove(machine.wave, machine.provider, [machine])

    def _discard(self, finding: Finding) -> None:
        self._stacks.break_lock(finding.provider, finding.subject)
        self._stacks.discard(finding.provider, finding.subject)
        self._ledger.waves.close(finding.subject)

    def _delete(self, finding: Finding) -> None:
        provider = self._sites[finding.provider].provider
        if isinstance(provider, Strays):
            provider.remove_strays([finding.subject])

    def _ask_to_go(self, finding: Finding) -> None:
        why = f"{finding.kind}: {finding.detail}"
        if finding.machine is not None:
            self._fleet.remove(finding.machine, Reason.RECONCILED, why)
            return
        self._sites[finding.provider].provider.terminate([finding.subject])
        if finding.instance is not None:
            self._ledger.machines.tell(finding.instance, "terminated", f"{finding.subject}, {why}")

    def _see_gone(self, finding: Finding, deadline: float) -> None:
        """Raises NotGoneInTime, or what keeps the machine from being removed."""
        pause = _FIRST_LOOK
        while not self._gone(finding):
            trouble = self._committer.trouble(finding.machine.uid) if finding.machine else None
            if isinstance(trouble, AuthenticationError):
                raise trouble
            if time.monotonic() > deadline:
                raise NotGoneInTime(finding.subject, self._gone_seconds, str(trouble or ""))
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _gone(self, finding: Finding) -> bool:
        if finding.machine is not None:
            # By its uid: its identity may be another machine's by now.
            now = self._ledger.machines.get(finding.machine.uid)
            return now is None or now.state is State.GONE
        listing = self._sites[finding.provider].inventory.fresh()
        return all(instance.instance_id != finding.subject for instance in listing)


def _tried(step: Callable[[Finding], None], finding: Finding) -> Outcome:
    try:
        step(finding)
    except TangoCloudError as error:
        log.warning("%s %s: %s", finding.kind, finding.subject, error)
        late = isinstance(error, NotGoneInTime)
        return Outcome(finding, str(error) or type(error).__name__, late)
    return Outcome(finding)
