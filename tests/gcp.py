"""Deployments on an emulated Compute Engine, with the simulated plugin for Terraform."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tango_cloud.core import tags

from .compute.client import ComputeEmulation
from .deployment import leaving_nothing, make_deployment
from .emulated import EmulatedDeployment, emulated
from .google_plugin import Unavailable as NoPlugin
from .google_plugin import install

IMAGE = "course"
"""The image that every emulated cloud of the tests has."""
REGIONS = ("us-central1", "us-east1")
ZONES = ("us-central1-a", "us-central1-b", "us-east1-b")
"""Two of a region, then another region."""


@dataclass
class GcpDeployment(EmulatedDeployment):
    emulation: ComputeEmulation = field(kw_only=True)

    def instances(self) -> list[str]:
        return [f"{zone_of(instance)}/{instance['name']}" for instance in self.described()]

    def uids(self) -> dict[str, str]:
        return {
            f"{zone_of(instance)}/{instance['name']}": instance["labels"].get(tags.UID, "")
            for instance in self.described()
        }

    def described(self) -> Sequence[Mapping[str, Any]]:
        """Its instances, whatever their status, as the API shows them."""
        mine = f'labels.{tags.DEPLOYMENT}="{tags.encode(self.prefix)}"'
        return self.emulation.instances(mine)

    def terminate(self, instance_id: str) -> None:
        self.emulation.delete(instance_id)


def zone_of(instance: Mapping[str, Any]) -> str:
    return str(instance["zone"]).rpartition("/")[2]


def make_gcp_deployment(
    folder: Path, emulation: ComputeEmulation, state: Path, prefix: str, **more: str
) -> GcpDeployment:
    ours = {
        "TANGO_CLOUD_PROVIDER": "gcp",
        "TANGO_CLOUD_PREFIX": prefix,
        "TANGO_CLOUD_STATE_DIR": str(state),
        "TANGO_CLOUD_GCP__ZONES": json.dumps(ZONES),
    }
    made = make_deployment(folder, **(emulation.environment | ours | more))
    return GcpDeployment(made.folder, made.environment, emulation=emulation)


@pytest.fixture(scope="session")
def running_compute(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComputeEmulation]:
    """An emulated Compute Engine whose instances are real machines, one for all tests of a
    process."""
    folder = tmp_path_factory.mktemp("compute")
    with emulated(lambda: ComputeEmulation.start(folder), IMAGE) as emulation:
        yield emulation


@pytest.fixture
def compute(running_compute: ComputeEmulation) -> Iterator[ComputeEmulation]:
    """Without orders from the test before, and with none left to the next."""
    running_compute.clear()
    running_compute.reset_calls()
    yield running_compute
    running_compute.clear()
    assert not running_compute.malformed()


@pytest.fixture(scope="session")
def google_plugin(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment by which Terraform finds the plugin."""
    try:
        return install(tmp_path_factory.mktemp("google-plugin"))
    except NoPlugin as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def gcp_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder that deployments share: Terraform initialised, the envelope applied."""
    return tmp_path_factory.mktemp("gcp-state")


@pytest.fixture(scope="session")
def gcp_network(running_compute: ComputeEmulation) -> dict[str, str]:
    return shared_network(running_compute)


def shared_network(emulation: ComputeEmulation) -> dict[str, str]:
    """An existing network, as settings: deployments that share it have no address in common."""
    subnetworks = emulation.make_network("shared", *REGIONS)
    return {
        "TANGO_CLOUD_GCP__NETWORK": "shared",
        "TANGO_CLOUD_GCP__SUBNETWORKS": json.dumps(subnetworks),
    }


@pytest.fixture
def gcp(
    compute: ComputeEmulation,
    google_plugin: Mapping[str, str],
    gcp_state: Path,
    gcp_network: dict[str, str],
    tmp_path: Path,
) -> Iterator[GcpDeployment]:
    """A deployment that must leave nothing but its envelope, which the next one finds."""
    more = {**google_plugin, **gcp_network}
    deployment = make_gcp_deployment(tmp_path, compute, gcp_state, "tango", **more)
    with leaving_nothing(deployment):
        yield deployment
        compute.clear()
