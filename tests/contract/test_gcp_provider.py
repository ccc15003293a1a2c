"""The GCP provider: the contract on an emulated Compute Engine, and what it orders there."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tango_cloud.core.errors import ProviderUnavailable
from tango_cloud.core.model import InstanceStatus, MachineRequest, Market

from ..compute.client import ComputeEmulation, Fault
from ..gcp import make_gcp_deployment
from ..waiting import wait_until
from .emulated_cloud import Applied, EmulatedCloud, envelope_applied
from .provider_contract import ProviderContract

OWNER = "contract"
"""The deployment that the envelope is of."""
SSH_FROM = "192.0.2.7/32"


@dataclass
class GcpCloud(EmulatedCloud):
    emulation: ComputeEmulation = field(kw_only=True)

    def described(self, uid: str) -> Mapping[str, Any]:
        (found,) = self.emulation.instances(f'labels.tango-uid="{uid}"')
        described: Mapping[str, Any] = found
        return described


@pytest.fixture(scope="module")
def applied(
    running_compute: ComputeEmulation,
    google_plugin: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Applied]:
    folder = tmp_path_factory.mktemp("contract")
    more = {
        "TANGO_CLOUD_GCP__SSH_FROM": f'["{SSH_FROM}"]',
        "TANGO_CLOUD_GCP__NETWORK_CIDR": running_compute.subnetwork(),
        **google_plugin,
    }
    deployment = make_gcp_deployment(folder, running_compute, folder / "state", OWNER, **more)
    with envelope_applied(deployment) as applied:
        yield applied


@pytest.fixture
def cloud(compute: ComputeEmulation, applied: Applied, tmp_path: Path) -> Iterator[GcpCloud]:
    cloud = GcpCloud(
        applied.provider,
        applied.workspaces,
        tmp_path / "stacks",
        spoil=spoil_machine_type,
        gone_within=60,
        brief=dt.timedelta(seconds=31),  # Google takes no less than 30
        emulation=compute,
        applied=applied.envelope,
        owner=OWNER,
    )
    yield cloud
    compute.clear()
    for instance in compute.instances():
        compute.delete(f"{str(instance['zone']).rpartition('/')[2]}/{instance['name']}")
    wait_until(lambda: not compute.hosts(), 30)


def spoil_machine_type(request: MachineRequest) -> MachineRequest:
    return replace(request, offer=replace(request.offer, instance_type="e2-enormous"))


class TestGcpProvider(ProviderContract):
    pass


def test_a_machine_is_shielded_labelled_and_nobody_s_servant(cloud: GcpCloud) -> None:
    wave = cloud.wave("prod", 1)
    assert wave.failure is None
    (request,) = wave.requests
    found = cloud.described(request.uid)
    assert found["labels"] == request.tags
    assert found["shieldedInstanceConfig"] == {
        "enableSecureBoot": True,
        "enableVtpm": True,
        "enableIntegrityMonitoring": True,
    }
    assert not found.get("serviceAccounts")
    assert not found.get("deletionProtection")
    (interface,) = found["networkInterfaces"]
    assert not interface.get("accessConfigs"), "no address that the internet sees"
    (disk,) = found["disks"]
    assert disk["autoDelete"]
    metadata = {item["key"]: item["value"] for item in found["metadata"]["items"]}
    assert metadata.pop("user-data").startswith("#cloud-config\n")
    assert metadata == {
        "enable-oslogin": "FALSE",
        "block-project-ssh-keys": "TRUE",
        "enable-guest-attributes": "TRUE",
        "serial-port-enable": "FALSE",
    }
    scheduling = found["scheduling"]
    assert scheduling["instanceTerminationAction"] == "DELETE"
    assert 0 < int(scheduling["maxRunDuration"]["seconds"]) <= 15 * 60
    assert (scheduling["provisioningModel"], scheduling["automaticRestart"]) == ("STANDARD", False)
    calls = cloud.emulation.calls()
    assert calls["instances.insert"] == 1
    assert not calls["instances.setLabels"], "labels go in the creating call"


def test_a_spot_machine_is_deleted_when_it_is_taken_back(cloud: GcpCloud) -> None:
    def on_spot(request: MachineRequest) -> MachineRequest:
        return replace(request, offer=replace(request.offer, market=Market.SPOT))

    wave = cloud.wave("prod", 1, change=on_spot)
    assert wave.failure is None
    (uid,) = wave.uids
    scheduling = cloud.described(uid)["scheduling"]
    assert (scheduling["provisioningModel"], scheduling["preemptible"]) == ("SPOT", True)
    assert scheduling["instanceTerminationAction"] == "DELETE"
    cloud.emulation.interrupt(cloud.listed("prod")[uid].instance_id, 0)
    cloud.wait_until("prod", ())


def test_the_firewall_lets_nobody_in_but_who_was_named(cloud: GcpCloud) -> None:
    found = cloud.emulation.ask("GET", "global/firewalls").get("items", ())
    (rule,) = [rule for rule in found if OWNER in rule.get("description", "")]
    assert rule["direction"] == "INGRESS"
    assert rule["sourceRanges"] == [SSH_FROM]
    assert rule["allowed"] == [{"IPProtocol": "tcp", "ports": ["22"]}]
    assert rule["targetTags"] == [cloud.applied["network_tag"]]
    wave = cloud.wave("prod", 1)
    assert cloud.described(wave.uids[0])["tags"]["items"] == rule["targetTags"]


@pytest.mark.parametrize("place", [{"zone": "us-central1-b"}, {"region": "us-east1"}])
def test_a_scope_that_could_not_be_reached_is_a_failure_and_no_absence(
    cloud: GcpCloud, place: dict[str, Any]
) -> None:
    cloud.emulation.order(Fault("unreachable", "instances.aggregatedList", **place))
    with pytest.raises(ProviderUnavailable):
        cloud.provider.instances("prod")


def test_a_machine_that_was_stopped_is_still_there_to_be_removed(cloud: GcpCloud) -> None:
    """It costs its disk, and Google does not delete it at its expiry any more."""
    wave = cloud.wave("prod", 1)
    (uid,) = wave.uids
    zone, _, name = cloud.listed("prod")[uid].instance_id.partition("/")
    cloud.emulation.done(cloud.emulation.ask("POST", f"zones/{zone}/instances/{name}/stop"))
    assert cloud.listed("prod")[uid].status is InstanceStatus.UNKNOWN
    cloud.provider.terminate([f"{zone}/{name}"])
    cloud.wait_until("prod", ())
