"""The inventory: the cloud's answer by tag, asked once for all who want it at the same moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from tango_cloud.core import tags
from tango_cloud.core.errors import AuthenticationError, ProviderUnavailable
from tango_cloud.core.model import Instance, InstanceStatus, MachineKey
from tango_cloud.providers.protocol import Provider


class Inventory:
    """One deployment's instances at one provider. Safe for many threads."""

    def __init__(
        self, provider: Provider, deployment: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._provider = provider
        self._deployment = deployment
        self._clock = clock
        self._lock = threading.Lock()
        self._begun = float("-inf")
        self._listing: tuple[Instance, ...] = ()
        self._failure: ProviderUnavailable | AuthenticationError | None = None

    def recent(self) -> Sequence[Instance]:
        """A listing not older than the provider's poll interval.

        Raises ProviderUnavailable or AuthenticationError when the cloud cannot be asked.
        """
        return self._newer_than(self._clock() - self._provider.poll_interval)

    def fresh(self) -> Sequence[Instance]:
        """A listing begun after this call. Raises as `recent`."""
        return self._newer_than(self._clock())

    def last(self) -> Sequence[Instance]:
        """The listing that was had last, however old; empty before the first."""
        return self._listing

    def _newer_than(self, moment: float) -> Sequence[Instance]:
        # Who waits for the lock meanwhile shares the next answer: it is asked for after all of them
        # came. A failure too: a cloud that does not answer would be asked by one after another.
        with self._lock:
            if self._begun < moment:
                begun = self._clock()
                self._failure = self._ask()
                self._begun = begun
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            return self._listing

    def _ask(self) -> ProviderUnavailable | AuthenticationError | None:
        try:
            found = self._provider.instances(self._deployment)
        except (ProviderUnavailable, AuthenticationError) as error:
            return error
        self._listing = tuple(i for i in found if i.status is not InstanceStatus.GONE)
        return None


def bears(instance: Instance, key: MachineKey) -> bool:
    """Whether an instance is tagged with this identity, however long its name is."""
    return (instance.key.deployment, instance.key.id) == (key.deployment, key.id) and (
        instance.key.name == key.name or instance.key.name == tags.encode(key.name)
    )
