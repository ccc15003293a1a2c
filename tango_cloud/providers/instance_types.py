"""Instance types: which fit a shape, and in what order they are offered. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tango_cloud.core.model import Market, Offer

MOST_TYPES = 8
"""More would only delay the word that there is no capacity."""


@dataclass(frozen=True, slots=True)
class InstanceType:
    """`preference`: the place in the settings of the first pattern that it matches."""

    name: str
    cores: int
    memory_mib: int
    architectures: frozenset[str]
    markets: frozenset[str]
    local_disk: bool
    preference: int

    def __str__(self) -> str:
        return f"{self.name}: {self.cores} cores, {self.memory_mib} MiB"


@dataclass(frozen=True, slots=True)
class Need:
    """A shape, completed."""

    cores: int
    memory_mib: int
    architecture: str

    def __str__(self) -> str:
        return f"{self.cores} cores, {self.memory_mib} MiB and {self.architecture}"


def preference(name: str, patterns: Sequence[str]) -> int | None:
    """The place of the first of `patterns` that a type's name matches; None if none does."""
    return next((i for i, text in enumerate(patterns) if fnmatch.fnmatchcase(name, text)), None)


def fitting(types: Iterable[InstanceType], need: Need) -> Sequence[InstanceType]:
    """Those that are enough: the smallest first, and of equals the plainest."""
    return sorted(
        (
            kind
            for kind in types
            if need.architecture in kind.architectures
            and kind.cores >= need.cores
            and kind.memory_mib >= need.memory_mib
        ),
        key=lambda kind: (
            kind.memory_mib,
            kind.cores,
            kind.local_disk,
            kind.preference,
            kind.name,
        ),
    )


def nearest(types: Iterable[InstanceType], need: Need) -> InstanceType | None:
    """The type of the right architecture that comes closest to `need` from below."""

    def closeness(kind: InstanceType) -> tuple[float, float, int, str]:
        cores = min(kind.cores / need.cores, 1.0)
        memory = min(kind.memory_mib / need.memory_mib, 1.0)
        return min(cores, memory), cores * memory, -kind.memory_mib, kind.name

    return max(
        (k for k in types if need.architecture in k.architectures), key=closeness, default=None
    )


def spread(
    provider: str,
    regions: Mapping[str, str],
    types: Sequence[InstanceType],
    zones: Mapping[str, Sequence[str]],
    markets: Sequence[str],
    spot_prices: Mapping[tuple[str, str], float],
) -> Sequence[Offer]:
    """Every market in its turn; in it the types, at most MOST_TYPES; of a type all its zones.

    `regions` are by zone, `zones` those that have a type, `spot_prices` by type and zone.
    """
    offers = []
    for market in markets:
        bought = [kind for kind in types if market in kind.markets and zones.get(kind.name)]
        for kind in bought[:MOST_TYPES]:
            for zone in zones[kind.name]:
                spot = market == Market.SPOT
                price = spot_prices.get((kind.name, zone)) if spot else None
                offers.append(
                    Offer(provider, regions[zone], zone, kind.name, Market(market), price)
                )
    return offers
