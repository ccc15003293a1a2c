"""A provider as one deployment sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tango_cloud.core.errors import ConfigurationError, Fault
from tango_cloud.orchestration.inventory import Inventory
from tango_cloud.providers.protocol import Provider


@dataclass(frozen=True, slots=True)
class Site:
    """A provider, and the deployment's inventory there."""

    provider: Provider
    inventory: Inventory


class Sites(dict[str, Site]):
    """The sites of a deployment, by the provider's name; `chosen` are those where machines may be
    made, of equals the first preferred. The others have machines of before.
    """

    def __init__(self, sites: Mapping[str, Site], chosen: Sequence[str] | None = None) -> None:
        super().__init__(sites)
        self.chosen = tuple(sites if chosen is None else chosen)

    def __missing__(self, name: str) -> Site:
        """Machines on the books outlive a change of the settings."""
        known = ", ".join(sorted(self))
        raise ConfigurationError([Fault("provider", f"{name} is not set up here", known)])
