"""Amazon EC2. Loaded through the entry point only: boto3 costs those who do not use it nothing."""

from __future__ import annotations

import datetime as dt

from tango_cloud.core.settings import Settings
from tango_cloud.providers.aws.provider import AwsProvider
from tango_cloud.providers.protocol import Provider


def from_settings(settings: Settings) -> Provider:
    """The provider as the settings describe it: what the entry point names."""
    lifetime = dt.timedelta(seconds=settings.machine.lifetime_seconds)
    return AwsProvider(settings.aws, settings.prefix, lifetime=lifetime)


__all__ = ["AwsProvider", "from_settings"]
