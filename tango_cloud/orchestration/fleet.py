"""The fleet: request, wait, use and release machines by identity, from any process.

Nothing here is held in memory that another process would need: the ledger and the inventory are.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from tango_cloud.core.errors import (
    AuthenticationError,
    Cancelled,
    MachineNotFound,
    MachineUnreachable,
    NotGoneInTime,
    NotReadyInTime,
    ProviderUnavailable,
    TangoCloudError,
)
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.lifecycle import USABLE, Reason, State
from tango_cloud.core.model import Event, Instance, InstanceStatus, Machine, MachineKey, Shape
from tango_cloud.orchestration.committer import Committer
from tango_cloud.orchestration.connections import Connections
from tango_cloud.orchestration.host_keys import HostKeys
from tango_cloud.orchestration.inventory import bears
from tango_cloud.orchestration.offers import Offers
from tango_cloud.orchestration.readiness import Readiness
from tango_cloud.orchestration.signals import Signals
from tango_cloud.orchestration.site import Site, Sites
from tango_cloud.transports.protocol import Session

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.25
"""How often a wait looks at the ledger when nothing in this process signals it."""
_POLL_SHARE = 0.003
"""Beyond some eighty waits at once each looks more seldom: once in as many seconds for each of
them. A look costs about a millisecond of processor time."""
_LONGEST_BACKOFF = 5.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A machine as the cloud and the ledger together show it; either may be missing.

    Without `machine` it is an orphan; without `instance` it does not exist yet, or is lost.
    """

    key: MachineKey
    provider: str
    machine: Machine | None
    instance: Instance | None
    copy: bool = False
    """Whether it has another instance's tags."""

    @property
    def damaged(self) -> bool:
        """Whether its tags look like ours and are not as we make them."""
        return self.copy or (self.instance is not None and bool(self.instance.faults))

    @property
    def state(self) -> str:
        if self.machine is None:
            return "damaged" if self.damaged else "orphan"
        if self.instance is None and self.machine.state in USABLE:
            return "lost"
        return self.machine.state


class Fleet:
    """One deployment's machines. Safe for many threads; each process has its own."""

    def __init__(
        self,
        deployment: str,
        ledger: Ledger,
        sites: Sites,
        offers: Offers,
        connections: Connections,
        host_keys: HostKeys,
        committer: Committer,
        signals: Signals,
        *,
        spare_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`spare_seconds` is how long a machine that is handed out has to live at the least."""
        self.deployment = deployment
        self._spare_seconds = spare_seconds
        self._ledger = ledger
        self._sites = sites
        self._offers = offers
        self._connections = connections
        self._committer = committer
        self._signals = signals
        self._readiness = Readiness(ledger, sites, connections, host_keys)
        self._clock = clock
        self._lock = threading.Lock()
        self._waits = 0

    # Asking

    def request(self, key: MachineKey, shape: Shape, lifetime: float) -> Machine:
        """Ask for a machine, of the best offer of all clouds; returns once the wish is durable.
        Idempotent.

        `lifetime` in seconds. Raises ConfigurationError when no offer fits the shape.
        """
        return self._request(key, shape, lifetime, holder="")

    def _request(self, key: MachineKey, shape: Shape, lifetime: float, holder: str) -> Machine:
        provider, shape = self._offered(shape)
        machine, _ = self._ledger.machines.request(key, provider, shape, lifetime, holder=holder)
        self._committer.kick_creation()
        return machine

    def request_next(self, shape: Shape, lifetime: float, *, keep: bool = False) -> Machine:
        """Ask for a machine under a fresh id and its image's name. Raises as `request`.

        It is this process', and of no use once that is dead, unless it is to `keep`.
        """
        provider, shape = self._offered(shape)
        machine = self._ledger.machines.request_next(
            self.deployment,
            PurePath(shape.image).stem,
            provider,
            shape,
            lifetime,
            holder="" if keep else self._committer.enrol(),
        )
        self._committer.kick_creation()
        return machine

    def _offered(self, shape: Shape) -> tuple[str, Shape]:
        """The provider of the best offer, and `shape` with the name of an image.

        Raises ConfigurationError when no offer fits it.
        """
        shape = shape if shape.image else replace(shape, image=self._default_image())
        return self._offers.of(shape)[0].offer.provider, shape

    def _default_image(self) -> str:
        """The first that any cloud names. Empty if none does: they then say what they expect."""
        for name in self._sites.chosen:
            with contextlib.suppress(ProviderUnavailable, AuthenticationError):
                if images := self._sites[name].provider.images():
                    return images[0]
        return ""

    def images(self) -> Sequence[str]:
        """The names of the images that jobs may ask for, of all providers.

        Raises ProviderUnavailable or AuthenticationError when one cannot be asked.
        """
        named = [i for name in self._sites.chosen for i in self._sites[name].provider.images()]
        return list(dict.fromkeys(named))

    def sudo(self) -> Collection[str]:
        """The clouds on whose machines the account that we log in with becomes root."""
        return {name for name, site in self._sites.items() if site.provider.sudo}

    def warnings(self) -> Sequence[str]:
        """What the providers warn of, each with what to do about it."""
        return [
            f"{check.subject}: {check.finding}. Better: {check.remedy}"
            for name in self._sites.chosen
            for check in self._sites[name].provider.warnings()
        ]

    # Waiting

    def wait(self, key: MachineKey, seconds: float, stop: threading.Event | None = None) -> Machine:
        """Return once the machine is ready, and proved to answer just now.

        A machine that is gone, or expires too soon for another job, is made again under the same
        identity and shape. Raises
        NotReadyInTime after `seconds`, MachineNotFound when `key` was never asked for,
        ProvisioningError, MachineDamaged or HostKeyMismatch when waiting longer is of no use,
        Cancelled soon after `stop` is set.
        """
        with self._counted():
            return self._wait(key, seconds, stop)

    def _wait(self, key: MachineKey, seconds: float, stop: threading.Event | None) -> Machine:
        deadline = self._clock() + seconds
        waiting_for = "nothing yet"
        news = False
        while True:
            if stop is not None and stop.is_set():
                raise Cancelled(f"{key}: no longer waited for")
            machine = self._bearer(key)
            try:
                remaining = max(0.1, deadline - self._clock())
                progress = self._readiness.step(machine, remaining, news=news)
            except ProviderUnavailable as error:
                waiting_for = f"the cloud to answer ({error})"
            else:
                if progress.ready and progress.machine is not None:
                    return progress.machine
                if progress.machine is None or progress.machine.uid != machine.uid:
                    self._committer.remove(machine)  # lost: what is left of it, its state at least
                moved = progress.machine is None or progress.machine.state != machine.state
                machine, waiting_for = progress.machine or machine, progress.waiting_for
                if moved and self._clock() < deadline:
                    continue
            if self._clock() >= deadline:
                raise NotReadyInTime(key.instance_name, seconds, f"waiting for {waiting_for}")
            if stop is not None and stop.is_set():
                continue  # what it waits for is nobody's to make any more
            self._committer.tend(machine)
            pause = max(_POLL_SECONDS, self._waits * _POLL_SHARE)
            signal = self._signals.of(machine.uid)
            news = signal.wait(min(pause, deadline - self._clock()))

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._waits += 1
        try:
            yield
        finally:
            with self._lock:
                self._waits -= 1

    def lease(self, key: MachineKey, transport: str | None = None) -> Session:
        """The session with a ready machine, which from now on shows as held by a job.

        By that transport, else by the deployment's own. Raises as `session`.
        """
        leased = self._ledger.machines.lease(key)
        return self._session(key, leased or self._ledger.machines.live(key), transport)

    def unlease(self, key: MachineKey) -> None:
        """The job is over."""
        self._ledger.machines.unlease(key)

    def session(self, key: MachineKey) -> Session:
        """The session with a machine that was ready before.

        Raises MachineNotFound when there is none, MachineUnreachable when it is not ready, as a
        machine is not that was replaced since the caller last waited for it.
        """
        return self._session(key, self._ledger.machines.live(key))

    def _session(
        self, key: MachineKey, machine: Machine | None, transport: str | None = None
    ) -> Session:
        if machine is None:
            raise MachineNotFound(f"{key}: no such machine")
        if machine.state not in USABLE:
            raise MachineUnreachable(f"{key} is {machine.state}, not ready")
        return self._connections.get(machine, transport=transport)

    def answers(self, machine: Machine, seconds: float) -> bool:
        """Whether it proves within that time that it is there, whatever its cloud shows."""
        try:
            self._connections.checked(machine, seconds)
        except TangoCloudError:
            return False
        return True

    def broken(self, session: Session) -> None:
        """The session failed its user: the next one connects anew."""
        self._connections.broken(session)

    def condemn(self, key: MachineKey, why: str) -> None:
        """The machine may not be used again: its next `wait` fails, until it is destroyed."""
        machine = self._ledger.machines.live(key)
        if machine is not None:
            self._ledger.machines.move(machine.uid, State.FAILED, Reason.DAMAGED, why)

    # Removing

    def destroy(self, key: MachineKey) -> None:
        """Ask for removal; may return before the machine is gone. Unknown is success.

        Raises ProviderUnavailable when the machine is not on the books and the cloud cannot be
        asked about it.
        """
        machine = self._ledger.machines.live(key)
        if machine is None:
            self._terminate_orphans(key, set())
            return
        self.remove(machine)

    def remove(self, machine: Machine, reason: Reason = Reason.RELEASED, detail: str = "") -> None:
        """As `destroy`, for exactly this machine, whoever bears its identity by now."""
        machines = self._ledger.machines
        # As the move leaves it: since it was looked up a wave may have claimed it, which then may
        # yet make it.
        moved = machines.move(machine.uid, State.DESTROYING, reason, detail)
        machine = moved or machines.get(machine.uid) or machine
        self._connections.close(machine.uid)
        self._committer.remove(machine)

    def destroy_and_wait(self, key: MachineKey, seconds: float) -> None:
        """Return once the cloud itself shows no instance of this identity.

        Looks with growing pauses until the cloud shows it gone. Raises NotGoneInTime after
        `seconds`, AuthenticationError at once: the machine stays on the books as destroying.
        """
        deadline = self._clock() + seconds
        pause = 0.1
        asked = ""
        ended: set[str] = set()
        trouble: TangoCloudError | None = None
        while True:
            machine = self._ledger.machines.live(key)
            try:
                if machine is not None and machine.uid != asked:
                    self.remove(machine)
                    asked = machine.uid
                elif machine is None and not self._terminate_orphans(key, ended):
                    return
            except ProviderUnavailable as error:
                trouble = error
            remaining = deadline - self._clock()
            if remaining <= 0:
                raise NotGoneInTime(key.instance_name, seconds, str(trouble or ""))
            # A removal signals what it removed; what it could not is tried again, ever more slowly.
            signal = self._signals.of(machine.uid if machine else key.instance_name)
            signal.wait(min(pause, remaining))
            if machine is not None:
                trouble = self._committer.trouble(machine.uid)
            if isinstance(trouble, AuthenticationError):
                raise trouble
            pause = min(pause * 2, _LONGEST_BACKOFF)

    def end_instance(self, provider: str, instance_id: str, seconds: float) -> None:
        """Remove an instance that a person has named, whatever its tags say; return once the cloud
        shows it gone. Raises as `destroy_and_wait`."""
        site = self._sites[provider]
        deadline = self._clock() + seconds
        pause = 0.1
        while found := [i for i in site.inventory.fresh() if i.instance_id == instance_id]:
            if found[0].status is not InstanceStatus.STOPPING:
                site.provider.terminate([instance_id])
            if self._clock() > deadline:
                raise NotGoneInTime(instance_id, seconds)
            self._signals.of(instance_id).wait(pause)
            pause = min(pause * 2, _LONGEST_BACKOFF)

    # Looking

    def entries(self) -> Sequence[Entry]:
        """Every machine of this deployment: all that the cloud shows and all on the books.

        Raises ProviderUnavailable or AuthenticationError when a cloud cannot be asked: what could
        not be listed never reads as absent.
        """
        # By uid; of several that bear it, copies made by hand say, the last is the machine's own.
        found: defaultdict[tuple[str, str], list[Instance]] = defaultdict(list)
        for name, site in self._sites.items():
            for instance in site.inventory.fresh():
                found[name, instance.uid].append(instance)
        entries = []
        for machine in self._ledger.machines.all_live(self.deployment):
            bearers = found[machine.provider, machine.uid]
            bearers.sort(key=lambda instance: instance.instance_id == machine.instance_id)
            own = bearers.pop() if bearers else None
            entries.append(Entry(machine.key, machine.provider, machine, own))
        for (name, _), others in found.items():
            entries += [
                Entry(instance.key, name, None, instance, self._is_copy(instance))
                for instance in others
            ]
        return sorted(entries, key=lambda entry: entry.key)

    def history(self, name: str) -> Sequence[Event]:
        """The story of every machine that bore this id or instance name, oldest first."""
        return self._ledger.machines.history(self.deployment, name)

    def exists(self, key: MachineKey) -> bool:
        """Whether the cloud or the ledger has a machine of this identity. Raises as `entries`."""
        return self._ledger.machines.live(key) is not None or bool(self._instances_of(key))

    # Ending

    def halt(self, unwanted: Iterable[MachineKey] = ()) -> None:
        """Interrupt what is being created, and create nothing more until this process asks for a
        machine, or waits for one: who waits elsewhere gets it made there. The `unwanted` are to go,
        and are nobody else's to make meanwhile."""
        for key in unwanted:
            with contextlib.suppress(ProviderUnavailable, AuthenticationError):
                self.destroy(key)
        self._committer.halt()

    def close(self) -> None:
        """Finish what was begun, and close every connection. Machines stay."""
        self._committer.close()
        self._connections.close_all()

    def _bearer(self, key: MachineKey) -> Machine:
        """The machine of this identity, asked for anew if it is gone. One that is about to expire
        is on its way then."""
        machine = self._ledger.machines.live(key) or self._again(key)
        if machine.state is not State.READY or not self._runs_out(machine):
            return machine
        log.info("%s is about to expire; another one takes its place", key)
        self.remove(machine, detail="about to expire")
        return self._ledger.machines.get(machine.uid) or machine

    def _runs_out(self, machine: Machine) -> bool:
        """Whether it may be gone before a job is done. Of a short life half is enough."""
        half = (machine.expires_at - machine.created_at) / 2
        return machine.expires_at - time.time() < min(self._spare_seconds, half)

    def _again(self, key: MachineKey) -> Machine:
        last = self._ledger.machines.last(key)
        if last is None:
            raise MachineNotFound(f"{key} was never asked for")
        log.info("%s is gone; asking for it anew", key)
        return self._request(key, last.shape, last.expires_at - last.created_at, last.holder)

    def _instances_of(self, key: MachineKey) -> list[tuple[Site, Instance]]:
        """In the clouds that it was ever asked for from: another one may be out of reach. In all
        when the books know nothing of it. Not what is merely tagged as if it were the machine, and
        no copy of it."""
        places = [name for name in self._ledger.machines.places(key) if name in self._sites]
        return [
            (site, instance)
            for site in map(self._sites.__getitem__, places or self._sites)
            for instance in site.inventory.fresh()
            if bears(instance, key) and not instance.faults and not self._is_copy(instance)
        ]

    def _is_copy(self, instance: Instance) -> bool:
        """Whether the machine that it is by its uid is, or was, another instance: somebody has
        launched "more like this"."""
        machine = self._ledger.machines.get(instance.uid)
        return machine is not None and not instance.may_be(machine.instance_id)

    def _terminate_orphans(self, key: MachineKey, ended: set[str]) -> bool:
        """Whether the cloud still showed any. `ended` gets those whose story tells it."""
        found = self._instances_of(key)
        for site, instance in found:
            if instance.status is not InstanceStatus.STOPPING:
                site.provider.terminate([instance.instance_id])
                if instance.instance_id not in ended:
                    ended.add(instance.instance_id)
                    detail = f"{instance.instance_id}, not on the books"
                    self._ledger.machines.tell(instance, "terminated", detail)
        return bool(found)
