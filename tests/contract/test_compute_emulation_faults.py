"""What goes wrong on an emulated Compute Engine, on order, and the life of its machines."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import paramiko
import pytest
from google.api_core import exceptions
from google.cloud import compute_v1

from ..compute.client import PROJECT, REGIONS, Fault, Refused
from ..waiting import wait_until
from .compute_account import (
    IN_A_TAG,
    REGION,
    SECONDS,
    ZONE,
    Account,
    account,
    shared_account,
    start,
)

__all__ = ["account", "shared_account"]
STOCK_OUT = "ZONE_RESOURCE_POOL_EXHAUSTED"


def test_a_name_is_taken_once(account: Account) -> None:
    first = account.insert(account.body("vm-1"))
    with pytest.raises(Refused, match="already exists") as caught:
        account.insert(account.body("vm-1"))
    assert (caught.value.status, caught.value.reason) == (409, "alreadyExists")
    other = account.insert(account.body("vm-1", "us-central1-b"), "us-central1-b")
    addresses = {i["networkInterfaces"][0]["networkIP"] for i in (first, other)}
    assert len(addresses) == 2


def test_a_request_id_makes_one_instance(account: Account) -> None:
    path = f"zones/{ZONE}/instances?requestId={uuid.uuid4()}"
    account.emulation.order(Fault("lost-response", times=1))
    with pytest.raises(OSError):  # noqa: PT011 - the connection is dropped
        account.ask("POST", path, account.body("vm-1"))
    again = account.ask("POST", path, account.body("vm-1"))
    assert account.emulation.done(again)["targetLink"].endswith("/vm-1")
    assert account.ask("POST", path, account.body("vm-1"))["name"] == again["name"]
    with pytest.raises(Refused, match="used before"):
        account.ask("POST", path, account.body("vm-2"))
    assert len(account.emulation.instances()) == 1


def test_no_capacity_is_found_out_by_the_operation(account: Account) -> None:
    account.emulation.order(Fault("operation-error", code=STOCK_OUT, zone=ZONE))
    path = f"zones/{ZONE}/instances?requestId={uuid.uuid4()}"
    begun = account.ask("POST", path, account.body("vm-1"))
    assert account.get("vm-1")["status"] in {"PROVISIONING", "STAGING"}, "seen for a moment"
    with pytest.raises(Refused, match="does not have enough resources available") as caught:
        account.emulation.done(begun)
    assert (caught.value.status, caught.value.reason) == (503, STOCK_OUT)
    assert not account.emulation.instances()
    account.emulation.clear()
    assert account.ask("POST", path, account.body("vm-1"))["status"] == "DONE", "it stays so"
    account.emulation.order(Fault("operation-error", code=STOCK_OUT, zone=ZONE))
    account.insert(account.body("vm-1", "us-central1-b"), "us-central1-b")


def test_a_quota_is_of_a_region_and_told_at_once_or_later(account: Account) -> None:
    order = account.emulation.order
    order(Fault("error", code="quotaExceeded", region=REGION, times=1))
    with pytest.raises(Refused, match=f"in region {REGION}") as caught:
        account.insert(account.body("vm-1"))
    assert (caught.value.status, caught.value.reason) == (403, "quotaExceeded")
    order(Fault("operation-error", code="QUOTA_EXCEEDED", region=REGION))
    with pytest.raises(Refused, match=f"in region {REGION}") as caught:
        account.insert(account.body("vm-1"))
    assert caught.value.reason == "QUOTA_EXCEEDED"
    account.insert(account.body("vm-1", "us-east1-b"), "us-east1-b")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("error", "*", code="rateLimitExceeded"), exceptions.Forbidden),
        (Fault("error", "*", code="rateLimitExceeded", status=429), exceptions.TooManyRequests),
        (Fault("error", "*", code="accessNotConfigured"), exceptions.Forbidden),
        (Fault("error", "instances.get", code="internalError"), exceptions.InternalServerError),
    ],
)
def test_a_client_meets_the_error_that_was_ordered(
    account: Account, fault: Fault, kind: type[Exception]
) -> None:
    account.emulation.order(fault)
    instances = account.client(compute_v1.InstancesClient)
    with pytest.raises(kind) as caught:
        instances.get(project=PROJECT, zone=ZONE, instance="vm-1", retry=None)
    assert caught.value.errors[0]["reason"] == fault.code  # type: ignore[attr-defined]
    account.emulation.ask("GET", f"zones/{ZONE}/instances")


def test_a_fault_strikes_what_it_names_and_nothing_else(account: Account) -> None:
    account.emulation.order(Fault("error", "zones.*", code="backendError", after=1, times=1))
    account.ask("GET", f"zones/{ZONE}")
    with pytest.raises(Refused, match="503"):
        account.ask("GET", "zones")
    account.ask("GET", "zones")
    account.ask("GET", "regions")
    assert account.emulation.calls() == {"zones.get": 1, "zones.list": 2, "regions.list": 1}
    account.emulation.order(Fault("error", code="quotaExceeded", market="spot"))
    spot = {"provisioningModel": "SPOT"}
    with pytest.raises(Refused, match="quotaExceeded"):
        account.insert(account.body("vm-1", scheduling=spot))
    account.insert(account.body("vm-1"))
    with pytest.raises(ValueError, match="no such effect"):
        account.emulation.control("POST", "faults", {"effect": "rain"})


@pytest.mark.parametrize("where", [{"zone": ZONE}, {"region": REGION}])
def test_a_scope_that_cannot_be_reached_is_named(account: Account, where: Any) -> None:
    account.insert(account.body("vm-1"))
    account.insert(account.body("vm-1", "us-east1-b"), "us-east1-b")
    account.emulation.order(Fault("unreachable", "instances.*", **where))
    instances = account.client(compute_v1.InstancesClient)
    page = next(iter(instances.aggregated_list(project=PROJECT).pages))
    part = page.items[f"zones/{ZONE}"]
    assert (part.warning.code, list(part.instances)) == ("UNREACHABLE", [])
    assert f"projects/{PROJECT}/zones/{ZONE}" in page.unreachables
    assert page.items["zones/us-east1-b"].instances
    with pytest.raises(exceptions.ServiceUnavailable):
        instances.list(project=PROJECT, zone=ZONE, retry=None)
    with pytest.raises(Refused, match="unreachable"):
        account.insert(account.body("vm-2"))
    account.insert(account.body("vm-2", "us-east1-b"), "us-east1-b")


def shown(account: Account) -> dict[str, str]:
    """The states of the instances that a listing has."""
    found = account.client(compute_v1.InstancesClient).aggregated_list(project=PROJECT)
    return {one.name: one.status for _, part in found for one in part.instances}


def test_a_listing_is_late_or_lacks_some_on_order(account: Account) -> None:
    for name in ("vm-1", "vm-2"):
        account.insert(account.body(name))
    order, listing = account.emulation.order, "instances.aggregatedList"
    order(Fault("stale", listing, delay=60, times=1))
    assert shown(account) == {}
    order(Fault("incomplete", listing, instance="*/vm-1", times=1))
    assert shown(account) == {"vm-2": "RUNNING"}
    assert shown(account) == {"vm-1": "RUNNING", "vm-2": "RUNNING"}
    time.sleep(1)
    account.emulation.delete(f"{ZONE}/vm-1")
    assert shown(account) == {"vm-2": "RUNNING"}
    order(Fault("stale", listing, delay=0.9, times=1))
    assert shown(account) == {"vm-1": "RUNNING", "vm-2": "RUNNING"}
    assert shown(account) == {"vm-2": "RUNNING"}


def test_an_instance_takes_the_time_to_go_that_was_ordered(account: Account) -> None:
    account.insert(account.with_host("vm-1"))
    account.emulation.order(
        Fault("undying", "instances.delete", instance="*/vm-1", delay=1, times=1)
    )
    path = f"zones/{ZONE}/instances/vm-1"
    first = account.ask("DELETE", path)
    wait_until(lambda: account.get("vm-1")["status"] == "STOPPING", SECONDS)
    again = account.ask("DELETE", path)  # which makes it no quicker
    time.sleep(0.5)
    assert account.get("vm-1")["status"] == "STOPPING"
    assert account.status("vm-1"), "it lives meanwhile"
    for operation in (first, again):
        account.emulation.done(operation)
    assert not account.emulation.instances()


def test_a_call_that_is_delivered_twice_is_one_with_a_request_id(account: Account) -> None:
    account.emulation.order(Fault("twice", times=2))
    path = f"zones/{ZONE}/instances?requestId={uuid.uuid4()}"
    account.emulation.done(account.ask("POST", path, account.body("vm-1")))
    with pytest.raises(Refused, match="already exists"):
        account.insert(account.body("vm-2"))
    assert {one["name"] for one in account.emulation.instances()} == {"vm-1", "vm-2"}
    account.emulation.order(Fault("twice", "instances.delete", times=1))
    account.emulation.done(account.ask("DELETE", f"zones/{ZONE}/instances/vm-1"))


def test_a_slow_operation_can_be_overtaken_by_a_deletion(account: Account) -> None:
    account.emulation.order(Fault("slow", delay=60))
    begun = account.ask("POST", f"zones/{ZONE}/instances", account.body("vm-1"))
    wait_until(lambda: account.get("vm-1")["status"] == "STAGING", SECONDS)
    path = f"zones/{ZONE}/operations/{begun['name']}"
    assert account.ask("GET", path)["status"] == "RUNNING"
    account.emulation.delete(f"{ZONE}/vm-1")
    with pytest.raises(Refused, match="OPERATION_CANCELED_BY_USER"):
        account.emulation.done(begun)


def test_a_deletion_can_fail(account: Account) -> None:
    account.insert(account.body("vm-1"))
    account.emulation.order(
        Fault("operation-error", "instances.delete", code="INTERNAL_ERROR", times=1)
    )
    with pytest.raises(Refused, match="INTERNAL_ERROR"):
        account.emulation.done(account.ask("DELETE", f"zones/{ZONE}/instances/vm-1"))
    assert account.get("vm-1")["status"] == "RUNNING"


def test_a_machine_is_what_its_user_data_says_and_ends_with_its_instance(account: Account) -> None:
    instance = account.ready(account.with_host("vm-1"))
    assert account.command(instance, "echo alive") == (0, "alive\n")
    account.emulation.delete(f"{ZONE}/vm-1")
    assert not account.emulation.hosts()
    with pytest.raises((OSError, LookupError)):
        account.command(instance, "true")


@pytest.fixture
def system(account: Account) -> None:
    if not account.emulation.interface:
        pytest.skip("without root hosts have no accounts, services or metadata of their own")


@pytest.mark.usefixtures("system")
def test_the_metadata_service_wants_its_header(account: Account) -> None:
    instance = account.ready(account.with_host("vm-1"))
    url, ask = "http://169.254.169.254/computeMetadata/v1/instance", "curl -s -w '%{http_code}'"
    flavor = "-H 'Metadata-Flavor: Google'"
    assert account.command(instance, f"{ask} {url}/attributes/user-data")[1] == "403"
    asked = f"curl -s -f {flavor} {url}"
    assert account.command(instance, f"{asked}/attributes/user-data")[1] == account.user_data()
    assert account.command(instance, f"{asked}/attributes/")[1] == "user-data\n"
    assert account.command(instance, f"{asked}/id")[1] == instance["id"]
    assert account.command(instance, f"{asked}/preempted")[1] == "FALSE"
    forwarded = f"{ask} {flavor} -H 'X-Forwarded-For: 192.0.2.1' {url}/id"
    assert account.command(instance, forwarded)[1] == "403"


@pytest.mark.usefixtures("system")
def test_power_off_stops_the_instance_and_does_not_delete_it(account: Account) -> None:
    limit = {"maxRunDuration": {"seconds": "3600"}, "instanceTerminationAction": "DELETE"}
    instance = account.ready(account.with_host("vm-1", scheduling=limit))
    assert "terminationTimestamp" in instance["resourceStatus"]["scheduling"]
    account.command(instance, "sudo -n systemctl poweroff")
    wait_until(lambda: account.get("vm-1")["status"] == "TERMINATED", SECONDS)
    assert not account.get("vm-1")["resourceStatus"]["scheduling"]
    assert not account.emulation.hosts()


@pytest.mark.parametrize(("action", "end"), [("DELETE", ""), ("STOP", "TERMINATED")])
def test_a_limited_run_time_ends_as_the_instance_says(
    account: Account, action: str, end: str
) -> None:
    account.emulation.order(Fault("expires", delay=0.5))
    limit = {"maxRunDuration": {"seconds": "30"}, "instanceTerminationAction": action}
    account.insert(account.with_host("vm-1", scheduling=limit))
    wait_until(lambda: _status(account) == end, SECONDS)
    assert not account.emulation.hosts()


def _status(account: Account) -> str:
    """Of the only instance; empty when there is none."""
    return "".join(instance["status"] for instance in account.emulation.instances())


@pytest.mark.usefixtures("system")
def test_a_spot_instance_hears_of_its_end_first(account: Account) -> None:
    spot = {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}
    instance = account.ready(account.with_host("vm-1", scheduling=spot))
    url = "http://169.254.169.254/computeMetadata/v1/instance/preempted"
    asked = f"curl -s -f -H 'Metadata-Flavor: Google' {url}"
    assert account.command(instance, asked)[1] == "FALSE"
    account.emulation.interrupt(f"{ZONE}/vm-1", 1.5)
    assert account.command(instance, asked)[1] == "TRUE"
    wait_until(lambda: not account.emulation.instances(), SECONDS)
    kinds = [
        operation["operationType"]
        for operation in account.ask("GET", f"zones/{ZONE}/operations")["items"]
    ]
    assert "compute.instances.preempted" in kinds


def test_a_spot_instance_is_taken_back_on_order(account: Account) -> None:
    account.emulation.order(Fault("preempted", delay=0.2, market="spot"))
    spot = {"provisioningModel": "SPOT"}
    account.insert(account.body("vm-1", scheduling=spot))
    wait_until(lambda: account.get("vm-1")["status"] == "TERMINATED", SECONDS)


@pytest.mark.parametrize("effect", ["no-boot", "ssh-refused", "wrong-host-key"])
def test_a_host_suffers_what_was_ordered(account: Account, effect: Any) -> None:
    account.emulation.order(Fault(effect, times=1))
    instance = account.insert(account.with_host("vm-1"))
    if effect != "no-boot":
        wait_until(lambda: account.status("vm-1") == "ready", SECONDS)
    expected = {"wrong-host-key": paramiko.BadHostKeyException, "ssh-refused": ConnectionError}
    with pytest.raises(expected.get(effect, (OSError, LookupError))):
        account.command(instance, "true")
    assert account.get("vm-1")["status"] == "RUNNING"


def test_a_boot_takes_the_time_that_was_ordered(account: Account) -> None:
    account.emulation.order(Fault("boot-delay", delay=0.8, times=1))
    began = time.monotonic()
    account.ready(account.with_host("vm-1"))
    assert time.monotonic() - began > 0.8


def test_a_host_dies_alone_or_with_its_instance(account: Account) -> None:
    for name in ("alone", "both"):
        account.ready(account.with_host(name))
    account.emulation.kill_host(f"{ZONE}/alone")
    account.emulation.kill_host(f"{ZONE}/both", terminate=True)
    assert (account.status("alone"), account.get("alone")["status"]) == ("off", "RUNNING")
    wait_until(lambda: len(account.emulation.instances()) == 1, SECONDS)


def test_fifty_instances_are_inserted_at_once(account: Account) -> None:
    began = time.monotonic()
    zones = ("us-central1-a", "us-central1-b")
    wanted = [(f"vm-{n}", zones[n % 2]) for n in range(50)]
    with ThreadPoolExecutor(50) as threads:
        list(threads.map(lambda one: account.insert(account.with_host(*one), one[1]), wanted))
    wait_until(
        lambda: [host["status"] for host in account.emulation.hosts()] == ["ready"] * 50,
        3 * SECONDS,
    )
    found = account.emulation.instances(f"labels.tango-deployment={IN_A_TAG['tango-deployment']}")
    assert len({i["networkInterfaces"][0]["networkIP"] for i in found}) == 50
    assert time.monotonic() - began < 3 * SECONDS


def test_an_emulation_is_there_soon_and_costs_little(tmp_path: Path) -> None:
    began = time.monotonic()
    emulation = start(tmp_path)
    took = time.monotonic() - began
    try:
        times = emulation.processes()[0].cpu_times()
        assert times.user + times.system < 2
        assert took < 10, "seconds, on a host that does other things too"
        assert len(emulation.ask("GET", "regions")["items"]) == len(REGIONS)
    finally:
        emulation.stop()


def test_without_root_hosts_are_programs_on_loopback(tmp_path: Path) -> None:
    emulation = start(tmp_path, loopback=True)
    try:
        mine = Account(emulation)
        instance = mine.ready(mine.with_host("vm-1"))
        assert "TANGO_CLOUD_GCP__REACH" in emulation.environment
        assert mine.command(instance, "echo alive") == (0, "alive\n")
        emulation.delete(f"{ZONE}/vm-1")
        assert not emulation.hosts()
    finally:
        emulation.stop()
