"""One wave: created by one apply, each machine's outcome settled on its own."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tango_cloud.core import tags
from tango_cloud.core.errors import NextMove, TangoCloudError, TerraformError
from tango_cloud.core.ledger import Ledger, process_started
from tango_cloud.core.lifecycle import Reason, State
from tango_cloud.core.model import InstanceStatus, Machine, MachineRequest, Wave
from tango_cloud.orchestration.connections import Connections
from tango_cloud.orchestration.keys import ClientKey, make_key_pair
from tango_cloud.orchestration.signals import Signals
from tango_cloud.orchestration.site import Sites
from tango_cloud.orchestration.stacks import Stacks, WaveReport
from tango_cloud.providers.protocol import Bootstrap, Provider

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a machine that could not be made: asked for anew, or failed."""

    again: bool
    reason: Reason
    offer: int
    pause: float


def judge(machine: Machine, error: TangoCloudError, offers: int, attempts: int) -> Verdict:
    """What the ledger does about `error`. `offers` is how many the provider has for the shape,
    `attempts` how often a machine may be asked for. Pure.
    """
    match error.next_move:
        case NextMove.NEXT_OFFER | NextMove.NEXT_REGION if machine.offer + 1 < offers:
            return Verdict(True, Reason.NO_CAPACITY, machine.offer + 1, 0.0)
        case NextMove.NEXT_OFFER | NextMove.NEXT_REGION:
            return Verdict(False, Reason.NO_CAPACITY, machine.offer, 0.0)
        case NextMove.RETRY if machine.attempt + 1 < attempts:
            pause = min(_FIRST_PAUSE * 2**machine.attempt, _LONGEST_PAUSE)
            return Verdict(True, Reason.PROVISIONING, machine.offer, pause)
        case _:
            return Verdict(False, Reason.PROVISIONING, machine.offer, 0.0)


class Waves:
    """Applies waves and removes their machines, for one deployment. Safe for many threads."""

    def __init__(
        self,
        ledger: Ledger,
        sites: Sites,
        stacks: Stacks,
        connections: Connections,
        signals: Signals,
        client_key: ClientKey,
        attempts: int,
    ) -> None:
        self._ledger = ledger
        self._sites = sites
        self._stacks = stacks
        self._connections = connections
        self._signals = signals
        self._client_key = client_key
        self._attempts = attempts

    def create(self, wave: str, provider: str, claimed: Sequence[Machine]) -> None:
        """Apply a wave this process has claimed. Never raises for what a machine met: each one
        ends up found by its instance, asked for anew, or failed with the reason.
        """
        report: WaveReport | None = None
        failure: TangoCloudError | None = None
        try:
            # Without those that were to be destroyed since they were claimed.
            wanted = self._ledger.machines.of_wave(wave)
            site = self._sites[provider].provider
            requests = [self._request(site, wave, m) for m in wanted if m.state is State.CREATING]
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
            self._settle(wave, provider, claimed, report, failure)

    def remove(self, wave: str, provider: str, machines: Sequence[Machine]) -> None:
        """Remove machines of one wave, and the wave itself with its last machine.

        Those that the cloud no longer shows are gone on the books; the others stay destroying.
        Raises ProviderUnavailable when the cloud cannot be asked.
        """
        uids = {machine.uid for machine in machines}
        for uid in uids:
            self._connections.close(uid)
        gone = uids - self._clear(wave, provider, uids)
        others = [m for m in self._ledger.machines.of_wave(wave) if m.uid not in gone]
        if all(machine.state is State.GONE for machine in others):
            # Before the books say so: who waits for the last machine finds no wave any more.
            self._stacks.discard(wave)
        for uid in gone:
            self._ledger.machines.move(uid, State.GONE, Reason.RELEASED)
            self._signals.forget(uid)
        self._close(wave)

    def settle_orphaned(self, wave: Wave) -> Sequence[Machine]:
        """Finish a wave whose owner and Terraform are dead: what the cloud shows is kept, the rest
        is asked for anew. Returns the machines given up, whose traces are still to be removed.
        Raises ProviderUnavailable when the cloud cannot be asked.
        """
        present = {i.uid for i in self._sites[wave.provider].inventory.fresh()}
        missing = [
            machine
            for machine in self._ledger.machines.of_wave(wave.wave)
            if machine.state is State.CREATING and machine.uid not in present
        ]
        for machine in missing:
            self._ledger.machines.supersede(
                machine,
                reason=Reason.SUPERSEDED,
                detail="whoever applied its wave died",
                offer=machine.offer,
                delay=0.0,
            )
        self._ledger.waves.applied(wave.wave)
        return missing

    def terraform_runs(self, wave: Wave) -> bool:
        """Whether the Terraform that the wave's owner started on this host still runs."""
        started = wave.terraform_started  # 0: none was, or it ended before it could be looked at
        return started > 0 and process_started(wave.terraform_pid) == started

    def cancel(self) -> None:
        self._stacks.cancel()

    def _request(self, provider: Provider, wave: str, machine: Machine) -> MachineRequest:
        """The machine as the provider is asked for it; its host key is on the books first."""
        pair = make_key_pair()
        self._ledger.machines.record(machine.uid, host_key=pair.public)
        offers = provider.offers(machine.shape)
        expires = dt.datetime.fromtimestamp(machine.expires_at, dt.UTC).replace(microsecond=0)
        return MachineRequest(
            uid=machine.uid,
            key=machine.key,
            shape=machine.shape,
            offer=offers[min(machine.offer, len(offers) - 1)],
            tags=_tags(machine, wave, expires),
            expires=expires,
            user_data=provider.user_data(
                Bootstrap(pair.private, pair.public, self._client_key.public, expires)
            ),
        )

    def _settle(
        self,
        wave: str,
        provider: str,
        claimed: Sequence[Machine],
        report: WaveReport | None,
        failure: TangoCloudError | None,
    ) -> None:
        """Book each machine's outcome. What failed is removed before anyone may ask for it anew."""
        created = report.created if report else frozenset()
        failed = [m for m in claimed if m.uid not in created]
        try:
            if report is not None and failed:
                self._clear(wave, provider, {m.uid for m in failed})
        finally:
            for machine in failed:
                self._book_failure(machine, provider, self._error(machine, report, failure))
                self._signals.forget(machine.uid)
            self._ledger.waves.applied(wave)
            self._close(wave)
            self._signals.notify(created)

    def _error(
        self, machine: Machine, report: WaveReport | None, failure: TangoCloudError | None
    ) -> TangoCloudError:
        error: TangoCloudError | None = report.errors.get(machine.uid) if report else None
        error = error or (report.failure if report else None) or failure
        if isinstance(error, TerraformError):
            return self._sites[machine.provider].provider.classify(error)
        return error or TangoCloudError("Terraform ended without making it")

    def _book_failure(self, machine: Machine, provider: str, error: TangoCloudError) -> None:
        offers = self._sites[provider].provider.offers(machine.shape)
        verdict = judge(machine, error, len(offers), self._attempts)
        if verdict.again:
            log.warning("%s: %s; asking anew", machine.key, error)
            self._ledger.machines.supersede(
                machine,
                reason=verdict.reason,
                detail=str(error),
                offer=verdict.offer,
                delay=verdict.pause,
            )
        elif self._ledger.machines.move(machine.uid, State.FAILED, verdict.reason, str(error)):
            log.error("%s: %s", machine.key, error)

    def _clear(self, wave: str, provider: str, uids: set[str]) -> set[str]:
        """Remove by Terraform, then what is left by the direct call; returns what is still there.

        Raises ProviderUnavailable when the cloud cannot be asked.
        """
        site = self._sites[provider]
        try:
            self._stacks.remove(provider, wave, uids)
        except TangoCloudError as error:
            log.warning("wave %s: Terraform could not remove %d: %s", wave, len(uids), error)
        left = [i for i in site.inventory.fresh() if i.uid in uids]
        stubborn = [i.instance_id for i in left if i.status is not InstanceStatus.STOPPING]
        if stubborn:
            # Terraform failed, or its state never knew them (it was killed): tags found them.
            site.provider.terminate(stubborn)
            left = [i for i in site.inventory.fresh() if i.uid in uids]
        return {instance.uid for instance in left}

    def _close(self, wave: str) -> None:
        if wave and self._ledger.waves.close(wave):
            self._stacks.discard(wave)


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
