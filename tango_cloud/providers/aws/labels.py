"""Tags as EC2 describes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import TagTypeDef


def labels_of(described: Iterable[TagTypeDef]) -> Mapping[str, str]:
    """The tags by their names."""
    return {tag["Key"]: tag["Value"] for tag in described}
