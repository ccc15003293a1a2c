"""Compute Engine's machine types, from its answers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tango_cloud.core.model import Market
from tango_cloud.providers.gcp.places import region_of
from tango_cloud.providers.instance_types import InstanceType, preference

if TYPE_CHECKING:
    from google.cloud import compute_v1

_ARM = frozenset({"c4a", "n4a", "t2a"})
"""For answers that do not tell the architecture."""
_MARKETS = frozenset(str(market) for market in Market)


def read(described: compute_v1.MachineType, patterns: Sequence[str]) -> InstanceType | None:
    """None for a type that no machine of ours should be: old, bare metal, with an accelerator, or
    not among `patterns`."""
    name = described.name
    preferred = preference(name, patterns)
    if (
        preferred is None
        or described.deprecated.state
        or described.accelerators
        or name.endswith("-metal")
    ):
        return None
    return InstanceType(
        name=name,
        cores=described.guest_cpus,
        memory_mib=described.memory_mb,
        architectures=frozenset({_architecture(described.architecture, name)}),
        markets=_MARKETS,
        local_disk=name.endswith("lssd"),
        preference=preferred,
    )


def _architecture(told: str, name: str) -> str:
    if told in ("ARM64", "X86_64"):
        return "arm64" if told == "ARM64" else "x86_64"
    return "arm64" if name.partition("-")[0] in _ARM else "x86_64"


def by_region(zones: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """The zones of each region, both in the order in which they are first named."""
    regions: dict[str, list[str]] = {}
    for zone in dict.fromkeys(zones):
        regions.setdefault(region_of(zone), []).append(zone)
    return regions
