"""A provider as one deployment sees it."""

from __future__ import annotations

from dataclasses import dataclass

from tango_cloud.orchestration.inventory import Inventory
from tango_cloud.providers.protocol import Provider


@dataclass(frozen=True, slots=True)
class Site:
    """A provider, and the deployment's inventory there."""

    provider: Provider
    inventory: Inventory
