"""The reaper: ends what has outlived its expiry, by the cloud's tags alone.

It needs no ledger, no Terraform and no state, so it works where all of them are lost, and from any
host that has credentials. It takes only what a living orchestrator has no more use for.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum

from tango_cloud.core.errors import NextMove, TangoCloudError
from tango_cloud.core.model import Instance, InstanceStatus
from tango_cloud.providers.protocol import Provider

GRACE = dt.timedelta(minutes=1)
"""So long a machine has, after its expiry, to end by itself."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0


class Fate(StrEnum):
    """What becomes of an instance."""

    KEPT = "kept"
    """Its time has not come."""
    DAMAGED = "damaged tags"
    """Tagged as ours, but not by us alone. It is told, and never touched."""
    EXPIRED = "expired"
    """It is to go, and still there."""
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Sighting:
    """An instance of the deployment, and what became of it. `error`: why it is still there."""

    provider: str
    instance: Instance
    fate: Fate
    error: TangoCloudError | None = None

    @property
    def leaving(self) -> bool:
        """Whether it can be waited for: not when only a person can help."""
        return self.fate is Fate.EXPIRED and (
            self.error is None or self.error.next_move is not NextMove.STOP
        )


@dataclass(frozen=True, slots=True)
class Harvest:
    """All that was seen. `failures`: the clouds that could not be asked, by name, and why."""

    sightings: Sequence[Sighting]
    failures: Mapping[str, TangoCloudError]

    def of(self, provider: str) -> Sequence[Sighting]:
        return [sighting for sighting in self.sightings if sighting.provider == provider]

    @property
    def expired(self) -> Sequence[Sighting]:
        """What is to go, and still there."""
        return [sighting for sighting in self.sightings if sighting.fate is Fate.EXPIRED]


class Reaper:
    """One deployment's. `clock` gives seconds since the epoch, `timer` those to wait by."""

    def __init__(
        self,
        deployment: str,
        providers: Sequence[Provider],
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._deployment = deployment
        self._providers = providers
        self._clock = clock
        self._timer = timer
        self._sleep = sleep

    def look(self) -> Harvest:
        """What there is, and what of it is to go. Changes nothing; raises nothing of a cloud's."""
        sightings: list[Sighting] = []
        failures = {}
        # Side by side: one that does not answer keeps nobody waiting.
        with ThreadPoolExecutor(len(self._providers)) as pool:
            looks = {one.name: pool.submit(self._see, one) for one in self._providers}
        for name, seen in looks.items():
            try:
                sightings += seen.result()
            except TangoCloudError as error:
                failures[name] = error
        return Harvest(sightings, failures)

    def run(self, seconds: float) -> Harvest:
        """End what has expired, and wait up to so long until the clouds show it gone.

        Raises as `look`. What was refused, or got lost on the way, is asked for with every look.
        """
        deadline = self._timer() + seconds
        harvest, pause = self.look(), _FIRST_PAUSE
        while harvest.expired:
            seen = [harvest.of(provider.name) for provider in self._providers]
            with ThreadPoolExecutor(len(self._providers)) as pool:
                parts = list(pool.map(self._end, self._providers, seen))
            harvest = replace(harvest, sightings=[one for part in parts for one in part])
            left = deadline - self._timer()
            if left <= 0 or not any(sighting.leaving for sighting in harvest.sightings):
                break
            self._sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)
        return harvest

    def _see(self, provider: Provider) -> Sequence[Sighting]:
        now = dt.datetime.fromtimestamp(self._clock(), dt.UTC)
        return [
            Sighting(provider.name, instance, _fate(instance, now))
            for instance in self._listed(provider)
        ]

    def _listed(self, provider: Provider) -> Sequence[Instance]:
        found = provider.instances(self._deployment)
        return [instance for instance in found if instance.status is not InstanceStatus.GONE]

    def _end(self, provider: Provider, seen: Sequence[Sighting]) -> Sequence[Sighting]:
        """What was seen there, as it is after those that are to go were asked to."""
        ids = [s.instance.instance_id for s in seen if s.fate is Fate.EXPIRED]
        if not ids:
            return seen
        refused: TangoCloudError | None = None
        try:
            provider.terminate(ids)
        except TangoCloudError as error:
            refused = error
        try:
            there = {one.instance_id: one for one in self._listed(provider)}
        except TangoCloudError as error:
            return [replace(s, error=error) if s.fate is Fate.EXPIRED else s for s in seen]
        return [_after(s, there.get(s.instance.instance_id), refused) for s in seen]


def _fate(instance: Instance, now: dt.datetime) -> Fate:
    if instance.faults:
        return Fate.DAMAGED
    return Fate.EXPIRED if instance.expires + GRACE <= now else Fate.KEPT


def _after(sighting: Sighting, now: Instance | None, refused: TangoCloudError | None) -> Sighting:
    if sighting.fate is not Fate.EXPIRED:
        return sighting
    if now is None:
        return replace(sighting, fate=Fate.GONE, error=None)
    # What was refused for one's sake was taken for the others'.
    error = None if now.status is InstanceStatus.STOPPING else refused
    return replace(sighting, instance=now, error=error)
