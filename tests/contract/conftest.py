"""Fixtures that several suites of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tango_cloud.core.errors import TerraformUnusable
from tango_cloud.terraform.binary import Binary, Source, resolve

from ..virtual_machine import machine as virtual_machine
from .local_cloud import cloud, kind, workspaces

__all__ = ["binary", "cloud", "kind", "workspaces"]


@pytest.fixture(scope="module", params=[Source.PATH, Source.PACKAGE])
def binary(request: pytest.FixtureRequest) -> Binary:
    """Each Terraform that this host has."""
    environ = None if request.param is Source.PATH else {"PATH": "/nowhere"}
    try:
        found = resolve(None, environ)
    except TerraformUnusable as error:
        pytest.skip(str(error))
    if found.source is not request.param:
        pytest.skip(f"no Terraform from {request.param}")
    return found


@pytest.fixture(scope="session")
def whole_machine() -> Iterator[virtual_machine.VirtualMachine]:
    """One for all tests: it takes minutes to boot."""
    with virtual_machine.booted() as machine:
        yield machine
