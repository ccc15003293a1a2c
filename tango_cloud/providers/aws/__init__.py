"""Amazon EC2. Loaded through the entry point only: boto3 costs those who do not use it nothing."""

from __future__ import annotations

import datetime as dt

from tango_cloud.core.settings import Settings
from tango_cloud.providers.aws.provider import AwsOptions, AwsProvider
from tango_cloud.providers.protocol import Provider


def from_settings(settings: Settings) -> Provider:
    """The provider as the settings describe it: what the entry point names."""
    aws = settings.aws
    return AwsProvider(
        AwsOptions(
            deployment=settings.prefix,
            region=aws.region,
            profile=aws.profile,
            zones=aws.zones,
            instance_types=aws.instance_types,
            markets=aws.markets,
            image_owners=aws.image_owners,
            network_cidr=aws.network_cidr,
            vpc_id=aws.vpc_id,
            subnet_ids=aws.subnet_ids,
            ssh_from=aws.ssh_from,
            public_address=aws.public_address,
            reach=aws.reach,
            lifetime=dt.timedelta(seconds=settings.machine.lifetime_seconds),
        )
    )


__all__ = ["AwsOptions", "AwsProvider", "from_settings"]
