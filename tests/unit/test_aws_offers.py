"""Instance types and images of EC2, from answers as it gives them."""

from __future__ import annotations

from typing import Any

import pytest

from tango_cloud.core.errors import ConfigurationError, ProviderUnavailable
from tango_cloud.core.model import Market
from tango_cloud.providers import instance_types
from tango_cloud.providers.aws import images
from tango_cloud.providers.aws.images import Image
from tango_cloud.providers.aws.instance_types import read
from tango_cloud.providers.cache import Cache
from tango_cloud.providers.instance_types import InstanceType, Need

PATTERNS = ("t3*", "t3a*", "t4g*", "m*", "c*", "r*")
REGIONS = {"z1": "r", "z2": "r"}


def info(name: str, cores: int, memory_mib: int, **changes: object) -> Any:
    """As DescribeInstanceTypes has it."""
    arm = name.partition(".")[0].endswith("g")
    return {
        "InstanceType": name,
        "CurrentGeneration": True,
        "BareMetal": False,
        "SupportedUsageClasses": ["on-demand", "spot"],
        "SupportedVirtualizationTypes": ["hvm"],
        "ProcessorInfo": {"SupportedArchitectures": ["arm64" if arm else "x86_64"]},
        "VCpuInfo": {"DefaultVCpus": cores},
        "MemoryInfo": {"SizeInMiB": memory_mib},
        "InstanceStorageSupported": False,
    } | changes


ANSWER = [
    info("m5.large", 2, 8192),
    info("m5d.large", 2, 8192, InstanceStorageSupported=True),
    info("c5.large", 2, 4096),
    info("t3.medium", 2, 4096),
    info("t3.small", 2, 2048),
    info("t3a.small", 2, 2048),
    info("t4g.small", 2, 2048),
    info("t3.micro", 2, 1024),
    info("t2.small", 1, 2048),
    info("m1.large", 2, 7680, CurrentGeneration=False),
    info("m5.metal", 96, 393216, BareMetal=True),
    info("c9x.large", 2, 4096, GpuInfo={"Gpus": []}),
    info("r5.24xlarge", 96, 786432, SupportedUsageClasses=["on-demand"]),
]


def known(patterns: tuple[str, ...] = PATTERNS) -> list[InstanceType]:
    found = [read(item, patterns) for item in ANSWER]
    return [kind for kind in found if kind is not None]


def names(need: Need) -> list[str]:
    return [kind.name for kind in instance_types.fitting(known(), need)]


def test_old_bare_and_accelerated_types_are_left_out_and_what_no_pattern_names() -> None:
    assert {kind.name for kind in known()}.isdisjoint(
        {"m1.large", "m5.metal", "c9x.large", "t2.small"}
    )


def test_the_smallest_comes_first_and_of_equals_the_plainest() -> None:
    assert names(Need(2, 2048, "x86_64")) == [
        "t3.small",
        "t3a.small",
        "t3.medium",
        "c5.large",
        "m5.large",
        "m5d.large",
        "r5.24xlarge",
    ]
    assert names(Need(2, 2048, "arm64")) == ["t4g.small"]
    assert names(Need(3, 1, "x86_64")) == ["r5.24xlarge"]
    assert names(Need(97, 1, "x86_64")) == []


def test_the_nearest_is_named_when_nothing_fits() -> None:
    nearest = instance_types.nearest(known(), Need(1000, 4096, "x86_64"))
    assert str(nearest) == "r5.24xlarge: 96 cores, 786432 MiB"
    assert instance_types.nearest(known(), Need(1, 1, "riscv64")) is None
    tiny = [kind for kind in known() if kind.name in {"t3.micro", "m5.large"}]
    assert str(instance_types.nearest(tiny, Need(4, 1000, "x86_64"))).startswith("t3.micro")


def test_markets_then_types_then_zones() -> None:
    types = instance_types.fitting(known(), Need(2, 8192, "x86_64"))
    zones = {"m5.large": ["z1", "z2"], "m5d.large": [], "r5.24xlarge": ["z2"]}
    prices = {("m5.large", "z2"): 0.03}
    offers = instance_types.spread("aws", REGIONS, types, zones, ("spot", "on-demand"), prices)
    assert [(o.market, o.instance_type, o.zone, o.hourly_usd) for o in offers] == [
        (Market.SPOT, "m5.large", "z1", None),
        (Market.SPOT, "m5.large", "z2", 0.03),
        (Market.ON_DEMAND, "m5.large", "z1", None),
        (Market.ON_DEMAND, "m5.large", "z2", None),
        (Market.ON_DEMAND, "r5.24xlarge", "z2", None),
    ]
    assert {(o.provider, o.region) for o in offers} == {("aws", "r")}


def test_only_so_many_types_are_tried() -> None:
    many = [info(f"m{n}.large", 2, 8192) for n in range(30)]
    types = [kind for item in many if (kind := read(item, PATTERNS))]
    zones = {kind.name: ["z1", "z2"] for kind in types}
    offers = instance_types.spread("aws", REGIONS, types, zones, ("on-demand",), {})
    assert len(offers) == 2 * instance_types.MOST_TYPES


def described(image_id: str, name: str, tag: str = "", created: str = "2030", size: int = 8) -> Any:
    """As DescribeImages has it."""
    return {
        "ImageId": image_id,
        "Name": name,
        "Tags": [{"Key": "Name", "Value": tag}] if tag else [],
        "Architecture": "x86_64",
        "CreationDate": f"{created}-01-01T00:00:00.000Z",
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
            {"DeviceName": "/dev/sdc", "Ebs": {"VolumeSize": 500}},
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": size}},
        ],
    }


def test_an_image_is_called_by_its_tag_or_else_by_its_own_name() -> None:
    assert images.read(described("ami-1", "own", "tagged")).name == "tagged"
    assert images.read(described("ami-1", "own")).name == "own"
    assert images.read({"ImageId": "ami-1"}) == Image("ami-1", "", "", "x86_64", 0, "", "")
    assert images.read(described("ami-1", "own", size=30)).disk_gib == 30


def test_a_name_stands_for_the_newest_image_of_that_tag_before_any_own_name() -> None:
    found = images.newest_first(
        images.read(item)
        for item in (
            described("ami-1", "a", "course", "2028"),
            described("ami-2", "b", "course", "2029"),
            described("ami-3", "course", "other", "2030"),
            described("ami-4", "course.img", "", "2031"),
        )
    )

    def chosen(*spellings: str) -> str | None:
        image = images.choose(found, spellings)
        return image.image_id if image else None

    assert chosen("course", "course.img") == "ami-2"
    assert chosen("course.img", "course") == "ami-4"
    assert chosen("a", "a.img") == "ami-1"
    assert chosen("Course", "Course.img") is None


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_is_kept_for_a_while_and_longer_when_the_cloud_is_away() -> None:
    clock, asked = Clock(), []

    def ask() -> int:
        asked.append(clock.now)
        return len(asked)

    def away() -> int:
        raise ProviderUnavailable("away")

    cache: Cache[str, int] = Cache(60, clock)
    with pytest.raises(ProviderUnavailable):
        cache.get("a", away)
    assert [cache.get("a", ask), cache.get("a", ask), cache.get("b", ask)] == [1, 1, 2]
    clock.now += 61
    assert cache.get("a", away) == 1
    assert cache.get("a", ask) == 3

    def wrong() -> int:
        raise ConfigurationError([])

    clock.now += 61
    with pytest.raises(ConfigurationError):
        cache.get("a", wrong)
