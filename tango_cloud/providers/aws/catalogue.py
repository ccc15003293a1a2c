"""What EC2 has to offer: instance types, where they are to be had, and spot prices. Cached."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence

from tango_cloud.core.errors import ConfigurationError, Fault, TangoCloudError
from tango_cloud.core.model import Market, Offer
from tango_cloud.providers import instance_types
from tango_cloud.providers.aws.clients import Clients
from tango_cloud.providers.aws.errors import asking
from tango_cloud.providers.aws.instance_types import read
from tango_cloud.providers.cache import Cache
from tango_cloud.providers.instance_types import InstanceType, Need

log = logging.getLogger(__name__)

_SECONDS = 3600.0
_CANDIDATES = 40
"""How many types are asked after before the zones that have them are known."""


class Catalogue:
    """Safe for many threads."""

    def __init__(
        self,
        clients: Clients,
        patterns: Sequence[str],
        markets: Sequence[str],
        zones: Sequence[str],
        subnet_ids: Sequence[str],
    ) -> None:
        self._clients = clients
        self._patterns = tuple(patterns)
        self._markets = tuple(markets)
        self._zones = tuple(zones)
        self._subnet_ids = tuple(subnet_ids)
        self._types: Cache[None, Sequence[InstanceType]] = Cache(_SECONDS)
        self._usable: Cache[None, Sequence[str]] = Cache(_SECONDS)
        self._offers: Cache[Need, Sequence[Offer]] = Cache(_SECONDS)

    def offers(self, need: Need) -> Sequence[Offer]:
        """Every way to get `need`, best first. Never empty.

        Raises ConfigurationError, which names the nearest type, when there is none.
        """
        return self._offers.get(need, lambda: self._find(need))

    def zones(self) -> Sequence[str]:
        """The zones that machines may be in. Never empty. Raises ConfigurationError."""
        return self._usable.get(None, self._ask_zones)

    def _find(self, need: Need) -> Sequence[Offer]:
        types = self._types.get(None, self._ask_types)
        if not types:
            patterns = ", ".join(self._patterns)
            raise ConfigurationError(
                [Fault("aws.instance_types", f"no type of this region is like {patterns}", "t3*")]
            )
        fitting = instance_types.fitting(types, need)
        if not fitting:
            best = instance_types.nearest(types, need)
            raise ConfigurationError(
                [
                    Fault(
                        "machine",
                        f"no type of aws.instance_types has {need}",
                        f"at most what the nearest has, {best}"
                        if best
                        else f"types for {need.architecture}, the image's architecture",
                    )
                ]
            )
        candidates = [k for k in fitting if k.markets & set(self._markets)][:_CANDIDATES]
        zones = self._ask_offerings([kind.name for kind in candidates])
        prices = self._ask_prices([kind.name for kind in candidates if zones.get(kind.name)])
        regions = dict.fromkeys(self.zones(), self._clients.region.name)
        offers = instance_types.spread("aws", regions, candidates, zones, self._markets, prices)
        if not offers:
            raise ConfigurationError(
                [
                    Fault(
                        "aws.zones",
                        f"none of {', '.join(self.zones())} has a type with {need} "
                        f"in the market {' or '.join(self._markets)}",
                        f"a zone that has {fitting[0]}",
                    )
                ]
            )
        return offers

    def _ask_types(self) -> Sequence[InstanceType]:
        found = []
        with asking():
            pages = self._clients.ec2.get_paginator("describe_instance_types").paginate(
                Filters=[
                    {"Name": "instance-type", "Values": list(self._patterns)},
                    {"Name": "current-generation", "Values": ["true"]},
                    {"Name": "bare-metal", "Values": ["false"]},
                ],
                PaginationConfig={"PageSize": 100},
            )
            for page in pages:
                found += [read(i, self._patterns) for i in page["InstanceTypes"]]
        return [kind for kind in found if kind is not None]

    def _ask_offerings(self, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """For each type the usable zones that have it, in the order of `zones()`."""
        usable = self.zones()
        having: dict[str, set[str]] = {}
        if names:
            with asking():
                pages = self._clients.ec2.get_paginator(
                    "describe_instance_type_offerings"
                ).paginate(
                    LocationType="availability-zone",
                    Filters=[{"Name": "instance-type", "Values": list(names)}],
                    PaginationConfig={"PageSize": 1000},
                )
                for page in pages:
                    for offering in page["InstanceTypeOfferings"]:
                        having.setdefault(offering["InstanceType"], set()).add(offering["Location"])
        return {name: [zone for zone in usable if zone in having.get(name, ())] for name in names}

    def _ask_zones(self) -> Sequence[str]:
        if self._subnet_ids:
            zones = self._ask_subnets()
        else:
            with asking():
                answer = self._clients.ec2.describe_availability_zones(
                    Filters=[
                        {"Name": "zone-type", "Values": ["availability-zone"]},
                        {"Name": "state", "Values": ["available"]},
                    ]
                )
            zones = sorted(zone["ZoneName"] for zone in answer["AvailabilityZones"])
        usable = [zone for zone in self._zones if zone in zones] if self._zones else zones
        missing = [zone for zone in self._zones if zone not in zones]
        if missing or not usable:
            raise ConfigurationError(
                [
                    Fault(
                        "aws.zones",
                        f"{', '.join(missing) or 'nothing'} is not among the zones to be used",
                        f"some of: {', '.join(zones)}",
                    )
                ]
            )
        return usable

    def _ask_subnets(self) -> Sequence[str]:
        """The zones of the subnets in the settings, in their order."""
        try:
            with asking():
                answer = self._clients.ec2.describe_subnets(SubnetIds=list(self._subnet_ids))
        except ConfigurationError as error:
            region = self._clients.region.name
            raise ConfigurationError(
                [Fault("aws.subnet_ids", error.faults[0].problem, f"subnets in {region}")]
            ) from error
        zone_of = {subnet["SubnetId"]: subnet["AvailabilityZone"] for subnet in answer["Subnets"]}
        return list(dict.fromkeys(zone_of[i] for i in self._subnet_ids if i in zone_of))

    def _ask_prices(self, names: Sequence[str]) -> Mapping[tuple[str, str], float]:
        """Spot prices in US dollars an hour. They are only told: without them all goes on."""
        if Market.SPOT not in self._markets or not names:
            return {}
        try:
            with asking():
                answer = self._clients.ec2.describe_spot_price_history(
                    InstanceTypes=list(names[: instance_types.MOST_TYPES]),  # type: ignore[arg-type]
                    ProductDescriptions=["Linux/UNIX"],
                    StartTime=dt.datetime.now(dt.UTC),
                )
        except TangoCloudError as error:
            log.info("no spot prices: %s", error)
            return {}
        return {
            (price["InstanceType"], price["AvailabilityZone"]): float(price["SpotPrice"])
            for price in answer["SpotPriceHistory"]
        }
