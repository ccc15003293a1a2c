"""Google Compute Engine. Loaded through the entry point only, and Google's client, which takes a
second to load, with the first question only."""

from __future__ import annotations

import datetime as dt

from tango_cloud.core.settings import Settings
from tango_cloud.providers.gcp.provider import GcpProvider
from tango_cloud.providers.protocol import Provider


def from_settings(settings: Settings) -> Provider:
    """The provider as the settings describe it: what the entry point names."""
    lifetime = dt.timedelta(seconds=settings.machine.lifetime_seconds)
    return GcpProvider(settings.gcp, settings.prefix, lifetime=lifetime)


__all__ = ["GcpProvider", "from_settings"]
