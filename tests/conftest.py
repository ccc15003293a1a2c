"""Fixtures of all suites."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .aws import aws, aws_network, aws_state, emulation, running_emulation
from .deployment import Deployment, leaving_nothing, make_deployment
from .gcp import compute, gcp, gcp_network, gcp_state, google_plugin, running_compute

# Whoever started the tests may have had it ignored, as a shell does for what it runs behind itself;
# the programs that the tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = [
    "aws",
    "aws_network",
    "aws_state",
    "compute",
    "deployment",
    "emulation",
    "gcp",
    "gcp_network",
    "gcp_state",
    "google_plugin",
    "running_compute",
    "running_emulation",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first: the short ones then fill up whoever has time left."""

    def short(item: pytest.Item) -> tuple[bool, bool]:
        named = any(cloud in item.path.name for cloud in ("_aws", "_gcp", "_clouds"))
        on_a_cloud = named and "unit" not in item.path.parts
        return not on_a_cloud, "e2e" not in item.path.parts

    items.sort(key=short)


@pytest.fixture
def deployment(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """A deployment that must leave nothing. Its parameter: more environment variables."""
    made = make_deployment(tmp_path, **getattr(request, "param", {}))
    with leaving_nothing(made):
        yield made
