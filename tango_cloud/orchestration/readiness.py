"""Bringing one machine to ready: one idempotent step for each state, nothing remembered between but
a doubt whether it is still there.

Every step may be taken by any process at any time, also by two at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from tango_cloud.core.errors import (
    AuthenticationError,
    HostKeyMismatch,
    MachineDamaged,
    MachineUnreachable,
    ProvisioningError,
)
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.lifecycle import USABLE, Reason, State
from tango_cloud.core.model import PRESENT, Instance, InstanceStatus, Machine, WaveState
from tango_cloud.orchestration.connections import Connections
from tango_cloud.orchestration.host_keys import HostKeys
from tango_cloud.orchestration.site import Sites

log = logging.getLogger(__name__)

_UNSEEN_SECONDS = 60.0
"""How long an instance may be missing from listings after it was made: clouds answer late."""
_DOUBT_SECONDS = 1.0
"""How long one that was seen must be missing to be lost: a listing may lack a part."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a step left the machine. `waiting_for` says, in words, what is missing to ready."""

    machine: Machine | None
    ready: bool = False
    waiting_for: str = ""


class Readiness:
    def __init__(
        self,
        ledger: Ledger,
        sites: Sites,
        connections: Connections,
        host_keys: HostKeys,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._sites = sites
        self._connections = connections
        self._host_keys = host_keys
        self._clock = clock
        self._timer = timer
        self._missed: dict[str, float] = {}
        """Since when the listings lack a machine that does not answer, by its uid."""

    def step(self, machine: Machine, seconds: float, *, news: bool = False) -> Progress:
        """Do what brings `machine` closer to ready, within about `seconds`.

        `news`: something has just happened to it, which an older listing would not show. Raises
        ProvisioningError when it has failed for good, MachineDamaged when it may not be used again,
        ProviderUnavailable or AuthenticationError when the cloud cannot be asked.
        """
        match machine.state:
            case State.REQUESTED:
                return Progress(machine, waiting_for=_because(machine, "its wave"))
            case State.CREATING:
                return self._find(machine, fresh=news)
            case State.STARTING | State.READY | State.LEASED if machine.uid in self._missed:
                # The cloud first: connecting to one that is gone may take many seconds.
                return self._missing(machine) or Progress(machine, waiting_for="SSH")
            case State.STARTING if not machine.host_key:
                return self._learn_host_key(machine, seconds)
            case State.STARTING:
                return self._greet(machine, seconds)
            case State.READY | State.LEASED:
                return self._verify(machine, seconds)
            case State.FAILED:
                raise _failure(machine)
            case State.DESTROYING:
                return Progress(machine, waiting_for="its predecessor to be gone")
            case State.GONE:
                return Progress(None, waiting_for="a new machine")

    def _find(self, machine: Machine, *, fresh: bool) -> Progress:
        """creating → starting, once the inventory shows the instance with an address."""
        instance = self._instance(machine, fresh=fresh)
        if instance is None and self._overdue(machine):
            return self._missing(machine) or Progress(machine, waiting_for="its address")
        if instance is None or not instance.address:
            return Progress(machine, waiting_for=f"the cloud to show it (wave {machine.wave})")
        if instance.status is not InstanceStatus.RUNNING:
            return Progress(machine, waiting_for=f"the instance to run ({instance.status})")
        moved = self._ledger.machines.move(
            machine.uid,
            State.STARTING,
            detail=f"{instance.instance_id} at {instance.address}:{instance.port}",
            instance_id=instance.instance_id,
            address=instance.address,
            port=instance.port,
            username=instance.username,
        )
        return Progress(moved or self._ledger.machines.get(machine.uid), waiting_for="SSH")

    def _learn_host_key(self, machine: Machine, seconds: float) -> Progress:
        """starting: the key that the machine made for itself, by word of the cloud.

        That is asked when the machine listens: keys are published before, and a call for each
        look at each machine would be too many.
        """
        if not self._connections.listens(machine, seconds):
            return self._missing(machine) or Progress(machine, waiting_for="SSH")
        key = self._sites[machine.provider].provider.host_key(machine.instance_id)
        if not key:
            return self._missing(machine) or Progress(machine, waiting_for="its host key")
        now = self._host_keys.expect(machine.uid, key)
        return self._greet(now or machine, seconds)

    def _greet(self, machine: Machine, seconds: float) -> Progress:
        """starting → ready: the first connection, which also replaces the bootstrap host key.

        The fresh key is on the books before the machine answers with it: killed at any point
        between, both keys are accepted, and the next one to come here finishes the change.
        """
        try:
            session = self._connections.get(machine, seconds)
            fresh_key = session.stage_host_key()
            self._host_keys.announce(machine.uid, fresh_key)
            session.activate_host_key()
            self._host_keys.settle(machine.uid, fresh_key)
        except HostKeyMismatch as error:
            return self._mismatch(machine, error)
        except (MachineUnreachable, AuthenticationError, MachineDamaged) as error:
            # Refused too: sshd may answer before the first boot has put our key in place. Damaged
            # too: another process may be changing the host key at this moment.
            self._connections.close(machine.uid)
            return self._missing(machine) or Progress(machine, waiting_for=f"SSH ({error})")
        self._missed.pop(machine.uid, None)
        moved = self._ledger.machines.move(machine.uid, State.READY)
        # None: another process was faster, or the machine is being destroyed.
        now = moved or self._ledger.machines.get(machine.uid)
        return Progress(now, ready=now is not None and now.state in USABLE)

    def _verify(self, machine: Machine, seconds: float) -> Progress:
        """ready: does it still answer?"""
        try:
            self._connections.checked(machine, seconds)
        except HostKeyMismatch as error:
            return self._mismatch(machine, error)
        except (MachineUnreachable, AuthenticationError) as error:
            return self._missing(machine) or Progress(machine, waiting_for=f"SSH ({error})")
        self._missed.pop(machine.uid, None)
        return Progress(machine, ready=True)

    def _mismatch(self, machine: Machine, error: HostKeyMismatch) -> Progress:
        """Another process may have replaced the key since `machine` was read: it has put the new
        one on the books first. Raises `error` when it has not.
        """
        now = self._ledger.machines.get(machine.uid)
        keys = (machine.host_key, machine.host_key_next)
        if now is not None and (now.host_key, now.host_key_next) != keys:
            return Progress(now, waiting_for="SSH with its new host key")
        self._ledger.machines.move(machine.uid, State.FAILED, Reason.HOST_KEY, str(error))
        raise error

    def _overdue(self, machine: Machine) -> bool:
        """Whether its apply ended so long ago that a listing without it means that it is lost."""
        if self._clock() - machine.changed_at < _UNSEEN_SECONDS:
            return False
        wave = self._ledger.waves.get(machine.wave)
        return wave is not None and wave.state is not WaveState.APPLYING

    def _missing(self, machine: Machine) -> Progress | None:
        """If the cloud no longer shows the machine, also when it is looked at again: lost, and the
        same identity asked for anew.

        Hundreds may wait for machines that boot: they share listings as old as the poll interval,
        and only who is not in one looks again.
        """
        for fresh in (False, True):
            instance = self._instance(machine, fresh=fresh)
            if instance is not None and instance.status in PRESENT:
                self._missed.pop(machine.uid, None)
                return None
        if instance is None and self._doubted(machine.uid) < _DOUBT_SECONDS:
            return Progress(machine, waiting_for="the cloud to show it again")
        self._missed.pop(machine.uid, None)
        log.warning("%s: lost (the cloud no longer shows it); asking for it anew", machine.key)
        self._connections.close(machine.uid)
        successor = self._ledger.machines.supersede(
            machine,
            reason=Reason.LOST,
            detail="absent from the cloud",
            provider=machine.provider,
            offer=0,
        )
        return Progress(successor, waiting_for="a new machine: the old one is lost")

    def _doubted(self, uid: str) -> float:
        """For how many seconds it has been missing."""
        now = self._timer()
        if uid not in self._missed:
            # Nobody comes back for some of the others: they were destroyed meanwhile.
            recent = {u: at for u, at in self._missed.items() if now - at < _UNSEEN_SECONDS}
            self._missed = recent | {uid: now}
        return now - self._missed[uid]

    def _instance(self, machine: Machine, *, fresh: bool) -> Instance | None:
        inventory = self._sites[machine.provider].inventory
        listing = inventory.fresh() if fresh else inventory.recent()
        return next((instance for instance in listing if instance.uid == machine.uid), None)


def _because(machine: Machine, what: str) -> str:
    return f"{what} (attempt {machine.attempt + 1})" if machine.attempt else what


def _failure(machine: Machine) -> ProvisioningError | MachineDamaged:
    text = f"{machine.key}: {machine.reason}: {machine.detail}"
    return MachineDamaged(text) if machine.reason is Reason.DAMAGED else ProvisioningError(text)
