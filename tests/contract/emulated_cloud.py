"""A provider on an emulated cloud, with one envelope for all the waves of a module's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tango_cloud.core.errors import TerraformUnusable
from tango_cloud.core.settings import load
from tango_cloud.providers.protocol import Provider
from tango_cloud.terraform.binary import resolve
from tango_cloud.terraform.environment import find_mirror, terraform_environment, write_cli_config
from tango_cloud.terraform.runner import Terraform
from tango_cloud.terraform.workspace import Workspaces
from tango_cloud.wiring import build_provider

from ..deployment import Deployment
from .provider_contract import Cloud


@dataclass
class EmulatedCloud(Cloud):
    applied: Mapping[str, Any] = field(kw_only=True)

    def envelope(self, deployment: str) -> object:
        return self.applied


@dataclass
class Applied:
    workspaces: Workspaces
    provider: Provider
    envelope: Any


@contextmanager
def envelope_applied(deployment: Deployment) -> Iterator[Applied]:
    """The envelope of `deployment`; as long as it is there, this process has its environment."""
    try:
        binary = resolve()
    except TerraformUnusable as error:
        pytest.skip(str(error))
    folder = deployment.folder
    with pytest.MonkeyPatch.context() as patch:
        for name, value in deployment.environment.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        settings = load()
        (name,) = settings.provider
        provider = build_provider(settings, name)
        configuration = write_cli_config(
            folder / "cli.tfrc", find_mirror(settings.terraform.plugin_mirror)
        )
        environment = terraform_environment(os.environ, cli_config=configuration, plugin_cache=None)
        workspaces = Workspaces(folder / "workspaces", Terraform(binary, environment))
        result = workspaces.open(name, "envelope", environment=provider.environment()).apply(
            folder / "envelope", provider.envelope_variables(deployment.prefix)
        )
        yield Applied(workspaces, provider, result.outputs["envelope"])
