"""Terraform's side of a deployment: its envelopes and waves, each a module with a state of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tango_cloud.core.errors import TangoCloudError


@dataclass(frozen=True, slots=True)
class WaveReport:
    """What one apply did: the uids it created, what failed one by one, and as a whole."""

    created: frozenset[str]
    errors: Mapping[str, TangoCloudError] = field(default_factory=dict)
    failure: TangoCloudError | None = None


class Stacks:
    pass
