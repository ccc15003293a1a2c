"""What Compute Engine has to offer: machine types, and the zones where they are. Cached."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tango_cloud.core.errors import ConfigurationError, Fault, ProviderUnavailable
from tango_cloud.core.model import Offer
from tango_cloud.providers import instance_types
from tango_cloud.providers.cache import Cache
from tango_cloud.providers.gcp.clients import Clients
from tango_cloud.providers.gcp.errors import asking
from tango_cloud.providers.gcp.machine_types import by_region, read
from tango_cloud.providers.gcp.places import region_of
from tango_cloud.providers.instance_types import InstanceType, Need

log = logging.getLogger(__name__)

_SECONDS = 3600.0
_AT_ONCE = 8
_PAGE = 500


class Catalogue:
    """Safe for many threads."""

    def __init__(
        self,
        clients: Clients,
        patterns: Sequence[str],
        markets: Sequence[str],
        zones: Sequence[str],
    ) -> None:
        self._clients = clients
        self._patterns = tuple(patterns)
        self._markets = tuple(markets)
        self._zones = [zone for part in by_region(zones).values() for zone in part]
        self._types: Cache[None, Mapping[str, Sequence[InstanceType]]] = Cache(_SECONDS)

    def offers(self, need: Need) -> Sequence[Offer]:
        """Every way to get `need`, best first. Never empty.

        Raises ConfigurationError, which names the nearest type, when there is none.
        """
        by_zone = self._types.get(None, self._ask_types)
        types = {kind.name: kind for kinds in by_zone.values() for kind in kinds}
        if not types:
            patterns = ", ".join(self._patterns)
            raise ConfigurationError(
                [
                    Fault(
                        "gcp.machine_types",
                        f"no type of these zones is like {patterns}",
                        "e2-*",
                    )
                ]
            )
        fitting = instance_types.fitting(types.values(), need)
        if not fitting:
            best = instance_types.nearest(types.values(), need)
            raise ConfigurationError(
                [
                    Fault(
                        "machine",
                        f"no type of gcp.machine_types has {need}",
                        f"at most what the nearest has, {best}"
                        if best
                        else f"types for {need.architecture}, the image's architecture",
                    )
                ]
            )
        zones = {
            kind.name: [zone for zone, kinds in by_zone.items() if kind in kinds]
            for kind in fitting
        }
        regions = {zone: region_of(zone) for zone in by_zone}
        return instance_types.spread("gcp", regions, fitting, zones, self._markets, {})

    def _ask_types(self) -> Mapping[str, Sequence[InstanceType]]:
        """By zone, in the order in which zones are tried."""
        zones = self._ask_zones()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(zip(zones, pool.map(self._ask_types_of, zones), strict=True))

    def _ask_types_of(self, zone: str) -> Sequence[InstanceType]:
        request = {"project": self._clients.project.name, "zone": zone, "max_results": _PAGE}
        with asking():
            answer = self._clients.machine_types.list(request=request, **self._clients.options)
            found = [read(kind, self._patterns) for kind in answer]
        return [kind for kind in found if kind is not None]

    def _ask_zones(self) -> Sequence[str]:
        """Those of the settings that are up."""
        request = {"project": self._clients.project.name, "max_results": _PAGE}
        with asking():
            answer = self._clients.zones.list(request=request, **self._clients.options)
            known = {zone.name: zone.status for zone in answer}
        missing = [zone for zone in self._zones if zone not in known]
        if missing:
            raise ConfigurationError([_unknown(zone, sorted(known)) for zone in missing])
        up = [zone for zone in self._zones if known[zone] != "DOWN"]
        if not up:
            raise ProviderUnavailable(f"{', '.join(self._zones)}: Google says that they are down")
        if len(up) < len(self._zones):
            down = ", ".join(zone for zone in self._zones if zone not in up)
            log.warning("%s: Google says that it is down; going without", down)
        return up


def _unknown(zone: str, known: Sequence[str]) -> Fault:
    near = difflib.get_close_matches(zone, known, n=3)
    return Fault("gcp.zones", f"there is no zone {zone}", ", ".join(near) or "us-central1-a")
