"""The committer: turns intents into waves and releases into removals, in groups.

Each process has one. Any process' committer may claim any intent of the deployment, and finishes
what a dead one left behind.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tango_cloud.core.errors import ProviderUnavailable, TangoCloudError
from tango_cloud.core.ledger import Ledger, new_uid
from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import Machine, Rate, WaveState
from tango_cloud.orchestration.group_commit import GroupCommit, Window, Work
from tango_cloud.orchestration.threads import REAL, Thread, Threads
from tango_cloud.orchestration.waves import Waves

log = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 5.0
_LOOK_SECONDS = 1.0
"""How often it is looked whether the owner of a wave that is waited for still lives."""
_FIRST_LOOK = 0.1
_LONGEST_PAUSE = 5.0
"""Seconds between two looks at a machine that is shutting down: growing from the one to the other.
"""


@dataclass(slots=True)
class _Removal:
    """A machine to be removed, not looked at before `due`; the next pause after that."""

    machine: Machine
    due: float
    pause: float = _FIRST_LOOK


class Committer:
    """Groups this process' creations and removals. Threads start when first needed.

    `concurrent_applies` bounds creations and removals separately: neither waits for the other.
    `machines` bounds one wave.
    `rates` are those of the providers that bound how fast machines may be asked for.
    """

    def __init__(
        self,
        deployment: str,
        ledger: Ledger,
        waves: Waves,
        *,
        window: Window,
        concurrent_applies: int,
        machines: int,
        rates: Mapping[str, Rate] | None = None,
        clock: Callable[[], float] = time.time,
        threads: Threads = REAL,
    ) -> None:
        self._deployment = deployment
        self._ledger = ledger
        self._waves = waves
        self._machines = machines
        self._rates = rates or {}
        self._clock = clock
        self._owner = new_uid()
        self._threads = threads
        self._closing = threads.event()
        self._halted = False
        self._heart: Thread | None = None
        self._lock = threading.Lock()
        self._to_remove: dict[str, _Removal] = {}
        self._removing: set[str] = set()
        self._troubles: dict[str, TangoCloudError] = {}
        self._waves_in_removal: set[str] = set()
        self._own_waves: set[str] = set()
        self._looked: dict[str, float] = {}
        self._creation = GroupCommit(
            "create",
            pending=lambda: sum(self._waiting().values()),
            claim=self._claim_creations,
            next_due=self._next_due,
            window=window,
            workers=concurrent_applies,
            threads=threads,
        )
        self._removal = GroupCommit(
            "remove",
            pending=self._removable,
            claim=self._claim_removals,
            next_due=self._next_removal,
            window=window,
            workers=concurrent_applies,
            threads=threads,
        )

    def kick_creation(self) -> None:
        """Somebody here wants a machine made. Ends a halt."""
        if self._halted:
            self._halted = False
            self._waves.resume()
        self._creation.kick()

    def remove(self, machine: Machine) -> None:
        """A machine is to go. A removal of it that is waiting or under way is joined.

        It is looked after until the cloud says that it is gone, as long as this process lives:
        asking again makes nothing quicker.
        """
        with self._lock:
            if machine.uid in self._removing or machine.uid in self._to_remove:
                return
            self._troubles.pop(machine.uid, None)
            self._to_remove[machine.uid] = _Removal(machine, 0.0)
        self._removal.kick()

    def trouble(self, uid: str) -> TangoCloudError | None:
        """Why the attempt to remove a machine failed that it was last asked for; None as yet."""
        with self._lock:
            return self._troubles.get(uid)

    def tend(self, machine: Machine) -> None:
        """Somebody waits for `machine`: make sure that somebody is at work on it."""
        if machine.state is State.REQUESTED:
            self.kick_creation()
        elif machine.state is State.DESTROYING:
            self.remove(machine)
        elif machine.state is State.CREATING and self._look_due(machine.wave):
            self._look_after(machine.wave)

    def _look_due(self, wave: str) -> bool:
        """Hundreds may wait for one wave: that its owner lives is looked up once in a while."""
        now = self._threads.now()
        with self._lock:
            if wave in self._looked and now - self._looked[wave] < _LOOK_SECONDS:
                return False
            recent = {w: at for w, at in self._looked.items() if now - at < _LOOK_SECONDS}
            self._looked = recent | {wave: now}
        return True

    def _look_after(self, wave: str) -> None:
        try:
            if self.finish(wave):
                self._creation.kick()
        except ProviderUnavailable as error:
            log.warning("wave %s: it cannot be finished now: %s", wave, error)

    def finish(self, wave_name: str) -> bool:
        """If the wave's owner died, and its Terraform too: finish the wave in its place. Whether
        that was so; what it has not made is then asked for anew.

        A wave of our own that nobody works on any more (a full disk, say) is finished likewise.
        Raises ProviderUnavailable or AuthenticationError when the cloud cannot be asked.
        """
        if wave_name in self._own_waves:
            return False
        wave = self._ledger.waves.get(wave_name)
        if wave is None or wave.state is not WaveState.APPLYING:
            return False
        others = wave.owner != self._owner and self._ledger.owners.alive(wave.owner)
        if others or self._waves.terraform_runs(wave):
            return False
        present = self._waves.present(wave)
        self.enrol()
        if not self._ledger.waves.take_over(wave, self._owner):
            return False
        log.warning("wave %s: whoever applied it died; finishing it", wave.wave)
        for machine in self._waves.settle_orphaned(wave, present):
            self.remove(machine)
        return True

    def halt(self) -> None:
        """Create nothing until somebody here asks again: applies are interrupted (Terraform saves
        its state and stops), and what they have not made is asked for anew. Removals go on."""
        self._halted = True
        self._waves.halt()

    def close(self) -> None:
        """Finish what was begun; intents that nobody has claimed stay on the books."""
        self._creation.close()
        self._removal.close()
        self._closing.set()
        if self._heart is not None:
            self._heart.join()
            self._ledger.owners.leave(self._owner)

    def _waiting(self) -> Mapping[str, int]:
        """The intents that this process can do something about, by provider."""
        if self._halted:
            return {}
        return self._ledger.intents.waiting(self._deployment, self._waves.providers)

    def _claim_creations(self) -> Sequence[Work]:
        self.enrol()
        works: list[Work] = []
        for provider in sorted(self._waiting()):
            wave = new_uid()
            # Before it is on the books: a waiter that sees it there must know that it is ours.
            self._own_waves.add(wave)
            claimed: Sequence[Machine] = ()
            try:
                claimed = self._ledger.intents.claim(
                    self._deployment,
                    provider,
                    wave,
                    self._owner,
                    rate=self._rates.get(provider),
                    most=self._machines,
                )
            except TangoCloudError as error:
                if not works:
                    raise
                log.warning("%s: nothing could be claimed: %s", provider, error)
                self._creation.kick()
            finally:
                if not claimed:
                    self._own_waves.discard(wave)
            if claimed:
                works.append(self._creating(wave, provider))
            if len(claimed) == self._machines:
                self._creation.kick()  # more may wait
        return works

    def _creating(self, wave: str, provider: str) -> Work:
        def work() -> None:
            try:
                self._waves.create(wave, provider)
            finally:
                self._own_waves.discard(wave)
            # What failed in passing was asked for anew meanwhile.
            self._creation.kick()

        return work

    def _claim_removals(self) -> Sequence[Work]:
        """One piece of work for each wave. What goes from a wave that a removal is at work on stays
        in the queue for the next one: Terraform would only wait, with long pauses, for its lock.
        """
        by_wave: defaultdict[tuple[str, str], list[_Removal]] = defaultdict(list)
        with self._lock:
            for removal in self._due():
                machine = removal.machine
                by_wave[machine.wave, machine.provider].append(removal)
                self._removing.add(machine.uid)
                del self._to_remove[machine.uid]
            self._waves_in_removal.update(wave for wave, _ in by_wave if wave)
        return [
            self._removing_work(wave, provider, members)
            for (wave, provider), members in by_wave.items()
        ]

    def _removing_work(self, wave: str, provider: str, removals: Sequence[_Removal]) -> Work:
        machines = [removal.machine for removal in removals]

        def work() -> None:
            left = {machine.uid for machine in machines}
            trouble: TangoCloudError | None = None
            try:
                if wave:
                    self.finish(wave)
                left = self._waves.remove(wave, provider, machines)
            except TangoCloudError as error:
                trouble = error
                raise
            finally:
                with self._lock:
                    for machine in machines:
                        self._troubles.pop(machine.uid, None)
                        if trouble is not None:
                            self._troubles[machine.uid] = trouble
                    self._removing.difference_update(machine.uid for machine in machines)
                    self._waves_in_removal.discard(wave)
                    self._look_again(removal for removal in removals if removal.machine.uid in left)
                    more = bool(self._to_remove)
                if more:
                    self._removal.kick()

        return work

    def _look_again(self, removals: Iterable[_Removal]) -> None:
        """Queue what is still there, for later. Called with the lock held."""
        for removal in removals:
            removal.due = self._threads.now() + removal.pause
            removal.pause = min(removal.pause * 2, _LONGEST_PAUSE)
            self._to_remove[removal.machine.uid] = removal

    def _due(self) -> Sequence[_Removal]:
        """What can be removed now. Called with the lock held."""
        now = self._threads.now()
        return [
            removal
            for removal in self._to_remove.values()
            if removal.due <= now and removal.machine.wave not in self._waves_in_removal
        ]

    def _removable(self) -> int:
        with self._lock:
            return len(self._due())

    def _next_removal(self) -> float | None:
        """In how many seconds a removal that waits becomes due; None if none does."""
        with self._lock:
            due = [
                removal.due
                for removal in self._to_remove.values()
                if removal.machine.wave not in self._waves_in_removal
            ]
        return max(0.0, min(due) - self._threads.now()) if due else None

    def _next_due(self) -> float | None:
        if self._halted:
            return None
        due = self._ledger.intents.next_due(self._deployment, self._waves.providers, self._rates)
        return None if due is None else max(0.0, due - self._clock())

    def enrol(self) -> str:
        """Be on the books as alive from now on: before any wave or machine names this process.

        Returns the name that it has there.
        """
        with self._lock:
            if self._heart is None:
                self._ledger.owners.beat(self._owner)
                self._heart = self._threads.spawn(self._heartbeat, "heartbeat", daemon=True)
        return self._owner

    def _heartbeat(self) -> None:
        while not self._closing.wait(_HEARTBEAT_SECONDS):
            try:
                self._ledger.owners.beat(self._owner)
            except Exception:
                log.exception("heartbeat failed; trying again")
