"""Instance types: which may be used, which fit a shape, and in what order. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tango_cloud.core.model import Market, Offer

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeInfoTypeDef

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


def read(info: InstanceTypeInfoTypeDef, patterns: Sequence[str]) -> InstanceType | None:
    """None for a type that no machine of ours should be: old, bare metal, with an accelerator, or
    not among `patterns`."""
    name = str(info["InstanceType"])
    preference = next(
        (i for i, pattern in enumerate(patterns) if fnmatch.fnmatchcase(name, pattern)), None
    )
    extras = (
        "GpuInfo",
        "FpgaInfo",
        "InferenceAcceleratorInfo",
        "NeuronInfo",
        "MediaAcceleratorInfo",
    )
    if (
        preference is None
        or not info.get("CurrentGeneration", True)
        or info.get("BareMetal", False)
        or "hvm" not in info.get("SupportedVirtualizationTypes", ["hvm"])
        or any(extra in info for extra in extras)
    ):
        return None
    return InstanceType(
        name=name,
        cores=info["VCpuInfo"]["DefaultVCpus"],
        memory_mib=info["MemoryInfo"]["SizeInMiB"],
        architectures=frozenset(info["ProcessorInfo"]["SupportedArchitectures"]),
        markets=frozenset(info.get("SupportedUsageClasses", [])),
        local_disk=info.get("InstanceStorageSupported", False),
        preference=preference,
    )


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
    region: str,
    types: Sequence[InstanceType],
    zones: Mapping[str, Sequence[str]],
    markets: Sequence[str],
    spot_prices: Mapping[tuple[str, str], float],
) -> Sequence[Offer]:
    """Every market in its turn; in it the types, at most MOST_TYPES; of a type all its zones.

    `zones` are those that have a type, `spot_prices` are by type and zone.
    """
    offers = []
    for market in markets:
        bought = [kind for kind in types if market in kind.markets and zones.get(kind.name)]
        for kind in bought[:MOST_TYPES]:
            for zone in zones[kind.name]:
                spot = market == Market.SPOT
                price = spot_prices.get((kind.name, zone)) if spot else None
                offers.append(Offer("aws", region, zone, kind.name, Market(market), price))
    return offers
