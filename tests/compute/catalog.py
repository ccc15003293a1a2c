"""What Google offers, in a small edition: regions, zones, machine types, public images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .resources import Place, Resource, Resources, region_of

PROJECT = "tango-test"
PUBLIC = "ubuntu-os-cloud"
"""The project that has the images of everybody."""
ZONES = (
    *("us-central1-a", "us-central1-b", "us-central1-c", "us-central1-f"),
    *("us-east1-b", "us-east1-c", "us-east1-d"),
    *("us-west1-a", "us-west1-b", "us-west1-c"),
    *("europe-west1-b", "europe-west1-c", "europe-west1-d"),
)
REGIONS = tuple(dict.fromkeys(map(region_of, ZONES)))

_GIB = {"standard": 4, "highmem": 8, "highcpu": 1}
"""Memory for each CPU, near enough; highcpu of E2, N2 and N2D has exactly this."""
_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "e2": ("standard-2", "standard-4", "standard-8", "standard-16", "highmem-2", "highcpu-4"),
    "n2": ("standard-2", "standard-4", "standard-8", "standard-16", "highmem-4", "highcpu-8"),
    "n2d": ("standard-2", "standard-4", "standard-8", "highmem-4"),
    "c3": ("standard-4", "standard-8", "standard-22", "highmem-8"),
    "t2d": ("standard-1", "standard-2", "standard-4", "standard-8"),
    "c4a": ("standard-1", "standard-2", "standard-4", "standard-8", "highmem-4"),
}
_SHARED = {"e2-micro": (2, 1024), "e2-small": (2, 2048), "e2-medium": (2, 4096)}
_ABSENT = {"t2d": {"us-central1-f"}, "c4a": {"us-central1-f", "us-west1-c", "europe-west1-d"}}
"""Zones that do not have a family."""
_ARM = {"c4a"}
_PLATFORMS = {"c3": "Intel Sapphire Rapids", "n2d": "AMD Milan", "t2d": "AMD Milan", "c4a": "ARM"}
_QUOTAS = ("CPUS", "PREEMPTIBLE_CPUS", "INSTANCES", "IN_USE_ADDRESSES", "SSD_TOTAL_GB")


def fill(resources: Resources) -> None:
    """Everything that is there before anybody makes anything."""
    for project in (PROJECT, PUBLIC):
        resources.add(Place(project, "", "", ""), "project", {"quotas": []})
    for region in REGIONS:
        place = Place(PROJECT, "", "regions", region)
        resources.add(place, "region", {"status": "UP"})
    for zone in ZONES:
        resources.add(Place(PROJECT, "", "zones", zone), "zone", {"status": "UP"})
        for name, resource in _machine_types(zone):
            place = Place(PROJECT, f"zones/{zone}", "machineTypes", name)
            resources.add(place, "machineType", resource)
    for name, architecture in (("amd64", "X86_64"), ("arm64", "ARM64")):
        family = f"ubuntu-2404-lts-{name}"
        place = Place(PUBLIC, "global", "images", f"ubuntu-2404-noble-{name}-v20260901")
        add_image(resources, place, family=family, architecture=architecture)


def add_image(resources: Resources, place: Place, **more: object) -> Resource:
    """With what the instances of this cloud need of it. Raises Error when the name is taken."""
    content = {
        "status": "READY",
        "sourceType": "RAW",
        "diskSizeGb": "10",
        "archiveSizeBytes": "1000000000",
        "architecture": "X86_64",
        "guestOsFeatures": [{"type": "UEFI_COMPATIBLE"}, {"type": "GVNIC"}],
        "labelFingerprint": "42WmSpB8rSM=",
        **more,
    }
    return resources.add(place, "image", content)


def _machine_types(zone: str) -> Iterator[tuple[str, Resource]]:
    for name, (cpus, memory) in _SHARED.items():
        yield name, _machine_type(zone, cpus, memory, isSharedCpu=True, architecture="X86_64")
    for family, sizes in _FAMILIES.items():
        if zone in _ABSENT.get(family, ()):
            continue
        for size in sizes:
            kind, _, number = size.partition("-")
            cpus = int(number)
            architecture = "ARM64" if family in _ARM else "X86_64"
            yield (
                f"{family}-{size}",
                _machine_type(zone, cpus, cpus * _GIB[kind] * 1024, architecture=architecture),
            )
    card = [{"guestAcceleratorType": "nvidia-l4", "guestAcceleratorCount": 1}]
    yield (
        "g2-standard-4",
        _machine_type(zone, 4, 16384, architecture="X86_64", accelerators=card),
    )
    old = {"state": "DEPRECATED"}
    yield "n1-standard-2", _machine_type(zone, 2, 7680, architecture="X86_64", deprecated=old)


def _machine_type(zone: str, cpus: int, memory: int, **more: object) -> Resource:
    return {
        "description": f"{cpus} vCPUs, {memory / 1024:g} GB RAM",
        "guestCpus": cpus,
        "memoryMb": memory,
        "isSharedCpu": False,
        "imageSpaceGb": 0,
        "maximumPersistentDisks": 128,
        "maximumPersistentDisksSizeGb": "263168",
        "zone": zone,
        **more,
    }


def platform(machine_type: str) -> str:
    return _PLATFORMS.get(machine_type.partition("-")[0], "Intel Cascade Lake")


def shown_region(resources: Resources, region: Resource) -> Resource:
    """With its zones, and what is used of its quotas."""
    name = region["name"]
    zones = [zone for zone in ZONES if region_of(zone) == name]
    running = [
        resource
        for zone in zones
        for _, resource in resources.each("instances", PROJECT, f"zones/{zone}")
    ]
    used = {"INSTANCES": len(running)}
    return {
        **region,
        "zones": [Place(PROJECT, "", "zones", zone).link for zone in zones],
        "quotas": [
            {"metric": metric, "limit": 2400.0, "usage": float(used.get(metric, 0))}
            for metric in _QUOTAS
        ],
    }


def shown_zone(zone: Resource) -> Resource:
    region = Place(PROJECT, "", "regions", region_of(zone["name"])).link
    return {**zone, "region": region, "availableCpuPlatforms": ["Intel Cascade Lake"]}
