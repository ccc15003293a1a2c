"""Fixtures that several suites of this folder share."""

from __future__ import annotations

import pytest

from tango_cloud.core.errors import TerraformUnusable
from tango_cloud.terraform.binary import Binary, Source, resolve

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
