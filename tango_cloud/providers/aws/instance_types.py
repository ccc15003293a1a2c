"""EC2's instance types, from its answers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tango_cloud.providers.instance_types import InstanceType, preference

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeInfoTypeDef

_EXTRAS = (
    "GpuInfo",
    "FpgaInfo",
    "InferenceAcceleratorInfo",
    "NeuronInfo",
    "MediaAcceleratorInfo",
)


def read(info: InstanceTypeInfoTypeDef, patterns: Sequence[str]) -> InstanceType | None:
    """None for a type that no machine of ours should be: old, bare metal, with an accelerator, or
    not among `patterns`."""
    name = str(info["InstanceType"])
    preferred = preference(name, patterns)
    if (
        preferred is None
        or not info.get("CurrentGeneration", True)
        or info.get("BareMetal", False)
        or "hvm" not in info.get("SupportedVirtualizationTypes", ["hvm"])
        or any(extra in info for extra in _EXTRAS)
    ):
        return None
    return InstanceType(
        name=name,
        cores=info["VCpuInfo"]["DefaultVCpus"],
        memory_mib=info["MemoryInfo"]["SizeInMiB"],
        architectures=frozenset(info["ProcessorInfo"]["SupportedArchitectures"]),
        markets=frozenset(info.get("SupportedUsageClasses", [])),
        local_disk=info.get("InstanceStorageSupported", False),
        preference=preferred,
    )
