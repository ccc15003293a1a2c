"""The emulated Compute Engine: held to Google's description, and used by Google's own client."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import compute_v1

from ..compute.client import PROJECT, PUBLIC, ZONES, Fault, Refused
from ..compute.discovery import Discovery
from ..compute.errors import Error
from ..compute.filters import parse
from .compute_account import IN_A_TAG, REGION, ZONE, Account, account, shared_account

__all__ = ["account", "shared_account"]


@pytest.fixture(scope="module")
def discovery() -> Discovery:
    return Discovery()


def test_the_document_says_what_fits(discovery: Discovery) -> None:
    method, path = discovery.find("POST", "projects/p1/zones/z1/instances")
    assert (method.name, path) == ("instances.insert", {"project": "p1", "zone": "z1"})
    method, _ = discovery.find("GET", "projects/p1/global/images/family/f1")
    assert method.name == "images.getFromFamily", "not an image called `family`"
    right = {"kind": "compute#image", "name": "i", "id": "1", "diskSizeGb": "10", "labels": {}}
    image, _ = discovery.find("GET", "projects/p1/global/images/i1")
    assert not discovery.faults_of_answer(image, right)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"madeUp": 1}, 'Unknown name "madeUp"'),
        ({"diskSizeGb": 10}, "not a string with an int64"),
        ({"id": "-1"}, "no uint64"),
        ({"status": "SLEEPING"}, "none of its values"),
        ({"name": "Big"}, "must be"),
        ({"labels": {"a": 1}}, "not a string"),
        ({"labels": ["a"]}, "not an object"),
        ({"licenses": "a"}, "not a list"),
        ({"family": None}, "not a string"),
        ({"labelFingerprint": "?"}, "not base64"),
        ({"enableConfidentialCompute": "true"}, "neither true nor false"),
        ({"guestOsFeatures": [{"type": "GVNIC"}, {"kind": "x"}]}, "guestOsFeatures[1]"),
    ],
)
def test_an_answer_that_does_not_fit_is_seen(
    discovery: Discovery, wrong: Mapping[str, object], said: str
) -> None:
    method, _ = discovery.find("GET", "projects/p1/global/images/i1")
    (fault,) = discovery.faults_of_answer(method, wrong)
    assert said in fault


def test_a_request_is_read_as_googles_servers_read_it(discovery: Discovery) -> None:
    method, _ = discovery.find("POST", "projects/p1/global/firewalls")
    body: dict[str, object] = {"name": "f", "priority": "900", "description": None, "allowed": []}
    read = discovery.body(method, json.dumps(body).encode())
    assert read == {"name": "f", "priority": 900, "allowed": []}
    with pytest.raises(Error, match="Required field 'name'"):
        discovery.body(method, b"{}")


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("labels.a=b", True),
        ("labels.a=c", False),
        ('labels.a = "b"', True),
        ("labels.a!=c AND name=vm-1", True),
        ("labels.none:*", False),
        ("(labels.a=c) OR (name=vm-1)", True),
        ("(labels.a=b) (name=vm-2)", False),
        ("NOT name=vm-2", True),
        ("name:vm", True),
        ("name=vm-*", True),
        ("name eq vm-.*", True),
        ("name ne 'vm-.*'", False),
        ("cpus>3", True),
        ("on=true", True),
    ],
)
def test_filters(text: str, matches: bool) -> None:
    resource = {"name": "vm-1", "labels": {"a": "b"}, "cpus": 4, "on": True}
    assert parse(text)(resource) is matches


@pytest.mark.parametrize(
    "text", ["labels.a", "=b", "(name=a", "name=a)", "name = = b", "name eq ("]
)
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(Error, match="Invalid list filter"):
        parse(text)


def test_every_method_that_is_described_and_not_emulated_answers_501(
    account: Account, discovery: Discovery
) -> None:
    emulated = set(account.emulation.methods())
    assert emulated < set(discovery.names())

    def status(name: str) -> int:
        raw = discovery.method(name).raw
        known: Mapping[str, Any] = raw["parameters"]
        path = re.sub(r"\{(\w+)\}", lambda part: _filled(known.get(part[1], {})), raw["flatPath"])
        with pytest.raises(Refused) as caught:
            account.emulation.ask(raw["httpMethod"], path)
        return caught.value.status

    others = [name for name in discovery.names() if name not in emulated]
    assert len(others) > 900
    assert {name: status(name) for name in others} == dict.fromkeys(others, 501)


def _filled(parameter: Mapping[str, Any]) -> str:
    """A value that the parameter's pattern takes."""
    pattern = re.compile(parameter.get("pattern", ".*"))
    return next(value for value in ("a", "1", PROJECT) if pattern.fullmatch(value))


def test_googles_own_client_finds_nothing_to_complain_about(account: Account) -> None:
    where = {"project": PROJECT}
    networks = account.client(compute_v1.NetworksClient).list(**where)
    assert [network.name for network in networks] == ["shared"]
    subnetworks = account.client(compute_v1.SubnetworksClient).list(**where, region=REGION)
    assert [subnetwork.name for subnetwork in subnetworks] == ["shared"]
    zones = account.client(compute_v1.ZonesClient).list(**where)
    assert tuple(sorted(zone.name for zone in zones)) == tuple(sorted(ZONES))
    assert account.client(compute_v1.ProjectsClient).get(**where).name == PROJECT
    region = account.client(compute_v1.RegionsClient).get(**where, region=REGION)
    assert {quota.metric for quota in region.quotas} >= {"CPUS", "INSTANCES"}
    types = account.client(compute_v1.MachineTypesClient)
    small = types.get(**where, zone=ZONE, machine_type="e2-standard-2")
    assert (small.guest_cpus, small.memory_mb, small.architecture) == (2, 8192, "X86_64")
    request = compute_v1.AggregatedListMachineTypesRequest(project=PROJECT, filter="guestCpus=1")
    offered = dict(types.aggregated_list(request))
    assert [one.name for one in offered[f"zones/{ZONE}"].machine_types] == [
        "c4a-standard-1",
        "t2d-standard-1",
    ]
    assert not offered["zones/us-central1-f"].machine_types
    images = account.client(compute_v1.ImagesClient)
    family = "ubuntu-2404-lts-arm64"
    assert images.get_from_family(project=PUBLIC, family=family).architecture == "ARM64"


def test_an_image_is_made_of_a_disk_that_nobody_writes_to(account: Account) -> None:
    made = account.insert(account.body("image-source"))
    body = {"name": "of-a-disk", "sourceDisk": made["disks"][0]["source"], "labels": IN_A_TAG}
    emulation = account.emulation
    with pytest.raises(Refused, match="already being used by"):
        account.ask("POST", "global/images", body)
    forced = account.ask("POST", "global/images?forceCreate=true", {**body, "name": "forced"})
    assert emulation.ask("GET", "global/images/forced")["status"] == "PENDING"
    emulation.done(forced)
    emulation.done(account.ask("POST", f"zones/{ZONE}/instances/image-source/stop"))
    emulation.done(account.ask("POST", "global/images", body))
    image = emulation.ask("GET", "global/images/of-a-disk")
    assert (image["status"], image["labels"], image["diskSizeGb"]) == ("READY", IN_A_TAG, "10")
    emulation.order(Fault("operation-error", "images.insert", code="INTERNAL_ERROR"))
    with pytest.raises(Refused, match="INTERNAL_ERROR"):
        emulation.done(account.ask("POST", "global/images", {**body, "name": "broken"}))
    assert emulation.ask("GET", "global/images/broken")["status"] == "FAILED"
    for name in ("of-a-disk", "forced", "broken"):
        emulation.done(account.ask("DELETE", f"global/images/{name}"))


def test_googles_own_client_makes_and_removes_what_an_envelope_has(account: Account) -> None:
    network = compute_v1.Network(name="own", auto_create_subnetworks=False)
    networks = account.client(compute_v1.NetworksClient)
    waits = account.client(compute_v1.GlobalOperationsClient)
    made = networks.insert_unary(project=PROJECT, network_resource=network)
    assert waits.wait(project=PROJECT, operation=made.name).status.name == "DONE"
    rule = compute_v1.Firewall(
        name="own",
        network="global/networks/own",
        allowed=[compute_v1.Allowed(I_p_protocol="tcp", ports=["22"])],
        source_ranges=["192.0.2.1/32"],
        target_tags=["own"],
    )
    rules = account.client(compute_v1.FirewallsClient)
    made = rules.insert_unary(project=PROJECT, firewall_resource=rule)
    waits.wait(project=PROJECT, operation=made.name)
    changed = compute_v1.Firewall(source_ranges=["192.0.2.2/32"])
    with pytest.raises(exceptions.BadRequest, match="name"):
        rules.patch_unary(project=PROJECT, firewall="own", firewall_resource=changed)
    changed.name = "own"
    made = rules.patch_unary(project=PROJECT, firewall="own", firewall_resource=changed)
    waits.wait(project=PROJECT, operation=made.name)
    assert rules.get(project=PROJECT, firewall="own").source_ranges == ["192.0.2.2/32"]
    with pytest.raises(exceptions.BadRequest, match="already being used"):
        networks.delete_unary(project=PROJECT, network="own")
    for client, name in ((rules, "firewall"), (networks, "network")):
        made = client.delete_unary(project=PROJECT, **{name: "own"})
        waits.wait(project=PROJECT, operation=made.name)
    with pytest.raises(exceptions.NotFound):
        networks.get(project=PROJECT, network="own")


def test_googles_own_client_sees_an_instance_through_its_life(account: Account) -> None:
    instances = account.client(compute_v1.InstancesClient)
    waits = account.client(compute_v1.ZoneOperationsClient)
    where = {"project": PROJECT, "zone": ZONE}
    wanted = compute_v1.Instance.from_json(json.dumps(account.with_host("vm-1")))
    account.emulation.order(Fault("slow", delay=2, times=1))  # it is looked at before it runs
    begun = instances.insert_unary(**where, instance_resource=wanted)
    assert begun.status.name == "PENDING"
    assert instances.get(**where, instance="vm-1").status in {"PROVISIONING", "STAGING"}
    assert waits.wait(**where, operation=begun.name).status.name == "DONE"
    found = instances.get(**where, instance="vm-1")
    assert (found.status, dict(found.labels)) == ("RUNNING", IN_A_TAG)
    disks = account.client(compute_v1.DisksClient)
    assert dict(disks.get(**where, disk="vm-1").labels) == IN_A_TAG
    with pytest.raises(exceptions.BadRequest, match="already being used"):
        disks.delete_unary(**where, disk="vm-1")
    labels = compute_v1.InstancesSetLabelsRequest(
        labels={"a": "b"}, label_fingerprint=found.label_fingerprint
    )
    asked = {**where, "instance": "vm-1", "instances_set_labels_request_resource": labels}
    waits.wait(**where, operation=instances.set_labels_unary(**asked).name)
    assert dict(instances.get(**where, instance="vm-1").labels) == {"a": "b"}
    with pytest.raises(exceptions.PreconditionFailed):
        instances.set_labels_unary(**asked)
    gone = instances.delete_unary(**where, instance="vm-1")
    assert waits.wait(**where, operation=gone.name).operation_type == "delete"
    with pytest.raises(exceptions.NotFound):
        instances.get(**where, instance="vm-1")
    with pytest.raises(exceptions.NotFound):
        disks.get(**where, disk="vm-1")
    assert account.emulation.calls()["instances.insert"] == 1


def test_an_aggregated_list_comes_in_pages_with_all_scopes_on_each(account: Account) -> None:
    for zone in (ZONE, "us-central1-b", "us-east1-b"):
        for n in range(2):
            account.insert(account.body(f"vm-{n}", zone), zone)
    account.insert(account.body("other", labels={"tango-deployment": "one-more"}))
    instances = account.client(compute_v1.InstancesClient)
    request = compute_v1.AggregatedListInstancesRequest(
        project=PROJECT, filter="labels.tango-deployment=one", max_results=4
    )
    pages = list(instances.aggregated_list(request).pages)
    assert len(pages) == 2
    found = []
    for page in pages:
        assert set(page.items) == {f"zones/{zone}" for zone in ZONES}
        for scope, part in page.items.items():
            assert bool(part.instances) is not (part.warning.code == "NO_RESULTS_ON_PAGE")
            found += [f"{scope}/{instance.name}" for instance in part.instances]
    places = (ZONE, "us-central1-b", "us-east1-b")
    assert sorted(found) == [f"zones/{zone}/vm-{n}" for zone in places for n in range(2)]
    assert [i["name"] for i in account.emulation.instances("labels.tango-deployment:one-m")] == [
        "other"
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"madeUp": 1}, "Unknown name"),
        ({"name": "Big_Name"}, "must be"),
        ({"name": None}, "Required field 'name'"),
        ({"machineType": f"zones/{ZONE}/machineTypes/e2-huge"}, "does not exist in zone"),
        ({"machineType": "zones/us-east1-b/machineTypes/e2-standard-2"}, "of another zone"),
        ({"machineType": "e2-standard-2"}, "URL is malformed"),
        ({"machineType": f"zones/{ZONE}/machineTypes/c4a-standard-1"}, "architecture"),
        ({"labels": {"Upper": "x"}}, "resource.labels"),
        ({"labels": {"a": "x" * 64}}, "resource.labels"),
        ({"tags": {"items": ["a_b"]}}, "resource.tags"),
        ({"disks": []}, "boot disk"),
        ({"networkInterfaces": []}, "networkInterfaces"),
        ({"networkInterfaces": [{"network": "global/networks/shared"}]}, "needs a subnetwork"),
        ({"scheduling": {"provisioningModel": "CHEAP"}}, "none of its values"),
        ({"scheduling": {"provisioningModel": "SPOT", "automaticRestart": True}}, "spot"),
        ({"scheduling": {"instanceTerminationAction": "DELETE"}}, "limited run time"),
        ({"scheduling": {"maxRunDuration": {"seconds": "29"}}}, "30 seconds"),
        ({"metadata": {"items": [{"key": "a", "value": ""}] * 2}}, "duplicate keys"),
        ({"metadata": {"items": [{"key": "a b", "value": ""}]}}, "must be"),
    ],
)
def test_what_compute_engine_does_not_take_is_refused(
    account: Account, change: Mapping[str, object], said: str
) -> None:
    with pytest.raises(Refused, match=re.escape(said)) as caught:
        account.insert({**account.body("wrong"), **change})
    assert caught.value.status == 400
    assert not account.emulation.instances()
    assert not account.ask("GET", f"zones/{ZONE}/disks").get("items")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"sourceImage": "global/images/none"}, "cannot be found"),
        ({"sourceImage": "global/images/family/none"}, "cannot be found"),
        ({"diskSizeGb": "1"}, "smaller than the image size"),
        ({"diskType": f"zones/{ZONE}/diskTypes/floppy"}, "diskType"),
        ({"labels": {"Upper": "x"}}, "labels"),
    ],
)
def test_disks_that_cannot_be_are_refused(
    account: Account, params: Mapping[str, object], said: str
) -> None:
    body = account.body("wrong")
    body["disks"][0]["initializeParams"] |= params
    with pytest.raises(Refused, match=said):
        account.insert(body)


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", f"zones/{ZONE}/instances?madeUp=1", 400),
        ("GET", f"zones/{ZONE}/instances?maxResults=501", 400),
        ("GET", f"zones/{ZONE}/instances?maxResults=many", 400),
        ("GET", f"zones/{ZONE}/instances?orderBy=id", 400),
        ("GET", f"zones/{ZONE}/instances?pageToken=x", 400),
        ("GET", f"zones/{ZONE}/instances?fields=items", 501),
        ("GET", f"zones/{ZONE}/instances?alt=proto", 501),
        ("GET", f"zones/{ZONE}/instances?alt=json&prettyPrint=false", 200),
        ("GET", "zones/mars-a/instances", 400),
        ("GET", "zones/UPPER/instances", 400),
        ("GET", "projects/nobody-s/zones", 404),
        ("GET", "zones/mars-a", 404),
        ("GET", f"zones/{ZONE}/thingummies", 404),
        ("DELETE", f"zones/{ZONE}/instances/none", 404),
        ("DELETE", f"zones/{ZONE}/instances/none?requestId=1", 400),
        ("DELETE", f"zones/{ZONE}/instances/none?requestId={uuid.UUID(int=0)}", 400),
        ("GET", f"zones/{ZONE}/operations/operation-none", 404),
    ],
)
def test_requests_outside_the_description(
    account: Account, verb: str, path: str, status: int
) -> None:
    if status == 200:
        assert account.ask(verb, path)["kind"] == "compute#instanceList"
        return
    with pytest.raises(Refused) as caught:
        account.ask(verb, path)
    assert caught.value.status == status


def test_an_answer_of_our_own_that_does_not_fit_fails_the_tests(account: Account) -> None:
    account.emulation.order(Fault("malformed", action="zones.get", times=1))
    with pytest.raises(Refused, match="own fault") as caught:
        account.ask("GET", f"zones/{ZONE}")
    assert caught.value.status == 500
    (said,) = account.emulation.malformed()
    assert said == "zones.get: Unknown name \"madeUp\" at 'resource'"
    account.emulation.forget_malformed()
    assert account.ask("GET", f"zones/{ZONE}")["name"] == ZONE


def test_a_family_that_takes_hyperdisk_only_refuses_other_disks(account: Account) -> None:
    body = account.body("arm", machineType=f"zones/{ZONE}/machineTypes/c4a-standard-1")
    body["disks"][0]["initializeParams"] = {
        "sourceImage": f"projects/{PUBLIC}/global/images/family/ubuntu-2404-lts-arm64",
        "diskType": f"zones/{ZONE}/diskTypes/pd-balanced",
    }
    with pytest.raises(Refused, match="not compatible"):
        account.insert(body)
    body["disks"][0]["initializeParams"]["diskType"] = f"zones/{ZONE}/diskTypes/hyperdisk-balanced"
    assert account.insert(body)["status"] == "RUNNING"
