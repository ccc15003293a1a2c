"""Fixtures of all suites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .aws import aws_network, aws_state, emulation, running_emulation
from .deployment import Deployment, clean, make_deployment

__all__ = ["aws_network", "aws_state", "deployment", "emulation", "running_emulation"]


@pytest.fixture
def deployment(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """A deployment that must leave nothing. Its parameter: more environment variables."""
    made = make_deployment(tmp_path, **getattr(request, "param", {}))
    yield made
    try:
        made.assert_nothing_left()
    finally:
        clean(made)
