"""One wave: created by one apply, each machine's outcome settled on its own."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from tango_cloud.core import tags
from tango_cloud.core.errors import (
    AuthenticationError,
    ConfigurationError,
    ProviderUnavailable,
    TangoCloudError,
    TerraformError,
    TerraformKilled,
)
from tango_cloud.core.ledger import Ledger, process_started
from tango_cloud.core.lifecycle import Reason, State
from tango_cloud.core.model import (
    PRESENT,
    Instance,
    InstanceStatus,
    Machine,
    MachineRequest,
    Wave,
    WaveState,
)
from tango_cloud.orchestration.connections import Connections
from tango_cloud.orchestration.host_keys import HostKeys
from tango_cloud.orchestration.keys import make_key_pair
from tango_cloud.orchestration.offers import Choice, Offers, judge
from tango_cloud.orchestration.signals import Signals
from tango_cloud.orchestration.site import Sites
from tango_cloud.orchestration.stacks import Stacks, WaveReport
from tango_cloud.providers.protocol import Bootstrap, Provider

log = logging.getLogger(__name__)

_LONGEST_APPLY_SECONDS = 900.0
"""After which an apply on a host that is not heard of any more counts as over: a machine takes the
clouds' plugins ten minutes at the most."""


class Waves:
    """Applies waves and removes their machines, for one deployment. Safe for many threads."""

    def __init__(
        self,
        ledger: Ledger,
        sites: Sites,
        offers: Offers,
        stacks: Stacks,
        connections: Connections,
        host_keys: HostKeys,
        signals: Signals,
        attempts: int,
    ) -> None:
        self._ledger = ledger
        self._sites = sites
        self._offers = offers
        self._stacks = stacks
        self._connections = connections
        self._host_keys = host_keys
        self._signals = signals
        self._attempts = attempts
        self._asked: set[str] = set()
        """The uids of those that the cloud has agreed to remove, until they are gone."""

    @property
    def providers(self) -> Collection[str]:
        """Those of which this process can make machines."""
        return self._sites.keys()

    def create(self, wave: str, provider: str) -> None:
        """Apply a wave this process has claimed. Never raises for what a machine met: each one
        ends up found by its instance, asked for anew, or failed with the reason.
        """
        report: WaveReport | None = None
        failure: TangoCloudError | None = None
        unfit: dict[str, TangoCloudError] = {}
        try:
            requests = self._requests(self._sites[provider].provider, wave, unfit)
            if requests:
                report = self._stacks.apply(
                    provider,
                    wave,
                    requests,
                    on_created=lambda uid: self._signals.notify([uid]),
                    on_start=lambda pid: self._ledger.waves.record_terraform(wave, pid),
                )
        except TangoCloudError as error:
            failure = error
        except OSError as error:
            failure = TangoCloudError(f"the wave could not be written: {error}")
        finally:
            report = report or WaveReport(frozenset(), failure=failure)
            self._settle(wave, provider, replace(report, errors={**report.errors, **unfit}))

    def remove(self, wave: str, provider: str, machines: Sequence[Machine]) -> set[str]:
        """Remove machines of one wave, and the wave itself with its last machine.

        The cloud is asked first, in one call, and Terraform's state follows. Those that the cloud
        no longer shows are gone on the books; returned are the uids of the others, which stay
        destroying: they are still shutting down, or may yet come up while the wave is applied.
        Raises ProviderUnavailable or AuthenticationError when the cloud cannot be asked.
        """
        uids = {machine.uid for machine in machines}
        for uid in uids:
            self._connections.close(uid)
        # Looked up before the listing: an apply that ends in between has shown all it made.
        applying = self._is_applying(wave)
        shown, left = self._terminate(provider, uids)
        gone = (uids & (shown | self._asked) if applying else uids) - left
        dropped = False
        if gone and not applying:
            # Before the books say so: who waits for the last machine finds no wave any more.
            dropped = self._forget(wave, provider, gone)
        for machine in machines:
            if machine.uid in gone:
                reason = machine.reason or Reason.RELEASED
                self._ledger.machines.move(machine.uid, State.GONE, reason, machine.detail)
        self._signals.notify(gone)
        self._asked.difference_update(gone)
        if applying and gone and self._all_gone(wave):
            # On EC2 it would look at what it has made for ten seconds more, at the least.
            self._stacks.interrupt(wave)
        if applying and not self._is_applying(wave):
            # It ended meanwhile, perhaps before it could see that these are gone.
            dropped = self._forget(wave, provider, gone)
        if self._ledger.waves.close(wave) and not dropped:
            # Another process removed the others meanwhile: neither saw the last one go.
            self._forget(wave, provider, gone)
        return uids - gone

    def present(self, wave: Wave) -> Collection[str]:
        """The uids that the wave's cloud shows. Raises ProviderUnavailable or AuthenticationError
        when it cannot be asked."""
        return {i.uid for i in self._sites[wave.provider].inventory.fresh()}

    def settle_orphaned(self, wave: Wave, present: Collection[str]) -> Sequence[Machine]:
        """Finish a wave whose owner and Terraform are dead: what is `present` is kept, the rest is
        asked for anew. Returns the machines given up, whose traces are still to be removed.
        """
        missing = [
            machine
            for machine in self._ledger.machines.of_wave(wave.wave)
            if machine.state is State.CREATING
            and machine.uid not in present
            and self._ledger.machines.supersede(
                machine,
                reason=Reason.SUPERSEDED,
                detail="whoever applied its wave died",
                provider=machine.provider,
                offer=machine.offer,
                among={State.CREATING},
            )
        ]
        try:
            self._stacks.break_lock(wave.provider, wave.wave)
        except TangoCloudError as error:
            log.warning("wave %s: its state stays locked: %s", wave.wave, error)
        self._ledger.waves.applied(wave.wave)
        return missing

    def terraform_runs(self, wave: Wave) -> bool:
        """Whether the Terraform that the wave's owner started still runs, or may: on another host
        that cannot be looked up, and it goes on for a while without its owner."""
        heard_of = self._ledger.owners.heartbeat_elsewhere(wave.owner)
        if heard_of is not None:
            return time.time() - heard_of < _LONGEST_APPLY_SECONDS
        started = wave.terraform_started  # 0: none was, or it ended before it could be looked at
        return started > 0 and process_started(wave.terraform_pid) == started

    def halt(self) -> None:
        """Interrupt what is being created by this process, now and until `resume`."""
        self._stacks.halt()

    def resume(self) -> None:
        self._stacks.resume()

    def _requests(
        self, provider: Provider, wave: str, unfit: dict[str, TangoCloudError]
    ) -> Sequence[MachineRequest]:
        """What to ask for, without what was to be destroyed since it was claimed. `unfit` gets what
        cannot be asked for, as for an image that is no more, which is not the others' fault."""
        requests = []
        for machine in self._ledger.machines.of_wave(wave):
            if machine.state is State.CREATING:
                with _noted(unfit, machine.uid):
                    requests.append(self._request(provider, wave, machine))
        try:
            provider.wave_machines(requests)
        except ConfigurationError:
            for request in requests:
                with _noted(unfit, request.uid):
                    provider.wave_machines([request])
        return [request for request in requests if request.uid not in unfit]

    def _request(self, provider: Provider, wave: str, machine: Machine) -> MachineRequest:
        """The machine as the provider is asked for it; if we give it its host key, that is on the
        books first."""
        pair = make_key_pair()
        if not provider.own_host_keys:
            self._host_keys.expect(machine.uid, pair.public)
        offers = provider.offers(machine.shape)
        expires = dt.datetime.fromtimestamp(machine.expires_at, dt.UTC).replace(microsecond=0)
        clients = tuple(self._ledger.clients.keys(machine.key.deployment))
        return MachineRequest(
            uid=machine.uid,
            key=machine.key,
            shape=machine.shape,
            offer=offers[min(machine.offer, len(offers) - 1)],
            tags=_tags(machine, wave, expires),
            expires=expires,
            user_data=provider.user_data(Bootstrap(pair.private, pair.public, clients, expires)),
        )

    def _settle(self, wave: str, provider: str, report: WaveReport) -> None:
        """Book each machine's outcome once its apply has ended.

        A machine that the cloud shows is kept, whatever Terraform says of it: readiness finds it.
        When the cloud cannot be asked, all are left as they are, for whoever waits for them.
        """
        instance_ids = report.instance_ids
        made = report.created | instance_ids.keys() - report.errors.keys()
        failed: Sequence[Machine] = ()
        try:
            members = self._ledger.machines.of_wave(wave)
            for machine in members:
                if not machine.instance_id and machine.uid in instance_ids:
                    # No listing has shown it yet: whoever removes it needs not wait for one.
                    instance_id = instance_ids[machine.uid]
                    self._ledger.machines.record(machine.uid, instance_id=instance_id)
            failed = [
                machine
                for machine in members
                if machine.state is State.CREATING and machine.uid not in made
            ]
            if failed:
                site = self._sites[provider]
                shown = {i.uid for i in site.inventory.fresh() if i.status in PRESENT}
                failed = [machine for machine in failed if machine.uid not in shown]
                # No listing has it yet, and then nobody would look for it any more.
                unseen = [instance_ids[m.uid] for m in failed if m.uid in instance_ids]
                if unseen:
                    site.provider.terminate(unseen)
            for machine in failed:
                self._book_failure(machine, report)
        except (ProviderUnavailable, AuthenticationError) as error:
            failed = ()
            log.warning("wave %s: what became of it cannot be told now: %s", wave, error)
        finally:
            self._ledger.waves.applied(wave)
            members = self._ledger.machines.of_wave(wave)
            gone = {machine.uid for machine in members if machine.state is State.GONE}
            self._forget(wave, provider, gone | {machine.uid for machine in failed})
            self._ledger.waves.close(wave)
            self._signals.notify(machine.uid for machine in members)

    def _error(self, machine: Machine, report: WaveReport) -> TangoCloudError:
        error = report.errors.get(machine.uid, report.failure)
        if isinstance(error, TerraformError) and not isinstance(error, TerraformKilled):
            return self._sites[machine.provider].provider.classify(error)
        return error or TangoCloudError("Terraform ended without making it")

    def _book_failure(self, machine: Machine, report: WaveReport) -> None:
        if report.interrupted or (report.errors and machine.uid not in report.errors):
            # Nothing is wrong with it: Ctrl-C or a neighbour's fault came in between.
            self._ledger.machines.supersede(
                machine,
                reason=Reason.SUPERSEDED,
                detail="its wave ended before it was made",
                provider=machine.provider,
                offer=machine.offer,
                counted=False,
                among={State.CREATING},
            )
            return
        error = self._error(machine, report)
        choices: Sequence[Choice] = ()
        with contextlib.suppress(ConfigurationError):
            choices = self._offers.of(machine.shape)
        verdict = judge(machine, error, choices, self._attempts)
        if verdict.again:
            successor = self._ledger.machines.supersede(
                machine,
                reason=verdict.reason,
                detail=str(error),
                provider=verdict.provider,
                offer=verdict.place,
                delay=verdict.pause,
                among={State.CREATING},
            )
            if successor is not None:
                log.warning("%s: %s; asking anew (%s)", machine.key, error, verdict.provider)
        elif self._ledger.machines.move(machine.uid, State.FAILED, verdict.reason, str(error)):
            log.error("%s: %s", machine.key, error)

    def _terminate(self, provider: str, uids: set[str]) -> tuple[set[str], set[str]]:
        """Ask the cloud to remove these machines, of very many as many as it lets us ask for now;
        also those that its listing lacks, by the ids they had: a listing may be late, or in part.
        Returns which it showed, and which it still does.

        Raises ProviderUnavailable or AuthenticationError when the cloud cannot be asked.
        """
        site = self._sites[provider]
        # As the books have it by now: an id may have been learnt when its wave's apply ended.
        booked = self._ledger.machines.instance_ids(uids)
        found = self._bearers(provider, booked)
        shown = {instance.uid for instance in found}
        standing = {i.instance_id: i.uid for i in found if i.status is not InstanceStatus.STOPPING}
        for uid in sorted(uids - shown - self._asked):
            if instance_id := booked.get(uid):
                standing[instance_id] = uid
        asked, left = list(standing), shown
        rate = site.provider.removal_rate
        if asked and rate is not None:
            asked = asked[: self._ledger.buckets.draw(f"{provider}/remove", rate, len(asked))]
        if asked:
            site.provider.terminate(asked)
            self._asked.update(standing[instance_id] for instance_id in asked)
            left = {instance.uid for instance in self._bearers(provider, booked)}
        return shown, left | (set(standing.values()) - self._asked)

    def _bearers(self, provider: str, booked: Mapping[str, str]) -> Sequence[Instance]:
        """The instances of these uids, whose ids are `booked` as far as they are known: another one
        with the same tags is a copy that somebody has made."""
        return [
            instance
            for instance in self._sites[provider].inventory.fresh()
            if instance.uid in booked and instance.may_be(booked[instance.uid])
        ]

    def _forget(self, wave: str, provider: str, gone: set[str]) -> bool:
        """Let the wave's state follow: without these machines, or dropped with the last one.

        Returns whether they were the last.
        """
        if not wave or not gone:
            return False
        members = self._ledger.machines.of_wave(wave)
        last = all(m.uid in gone or m.state is State.GONE for m in members)
        try:
            if last:
                self._stacks.discard(provider, wave)
            else:
                self._stacks.forget(provider, wave, gone)
        except TangoCloudError as error:
            # The machines are gone, which is what counts: nobody applies this state again.
            log.warning("wave %s: its state still names %d gone: %s", wave, len(gone), error)
        return last

    def _all_gone(self, wave: str) -> bool:
        return all(machine.state is State.GONE for machine in self._ledger.machines.of_wave(wave))

    def _is_applying(self, wave: str) -> bool:
        found = self._ledger.waves.get(wave) if wave else None
        return found is not None and found.state is WaveState.APPLYING


@contextlib.contextmanager
def _noted(unfit: dict[str, TangoCloudError], uid: str) -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        unfit[uid] = error


def _tags(machine: Machine, wave: str, expires: dt.datetime) -> Mapping[str, str]:
    key = machine.key
    return {
        tags.DEPLOYMENT: tags.encode(key.deployment),
        tags.ID: str(key.id),
        tags.NAME: tags.encode(key.name),
        tags.UID: machine.uid,
        tags.WAVE: wave,
        tags.IMAGE: tags.encode(machine.shape.image),
        tags.CREATED: str(int(machine.created_at)),
        tags.EXPIRES: str(int(expires.timestamp())),
    }
