"""The emulated EC2 itself: the machines it gives, and what it adds to LocalStack."""

from __future__ import annotations

import io
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import paramiko
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError
from emulation.client import Emulation, Fault

from ..aws import IMAGE, need_systems
from ..waiting import wait_until
from .local_cloud import run
from .provider_contract import Keys

SECONDS = 20.0


class Account:
    """An account with a subnet in each of two zones, and one image."""

    def __init__(self, emulation: Emulation) -> None:
        self.emulation = emulation
        self.ec2 = self.client(attempts=1)
        images = self.ec2.describe_images(Filters=[{"Name": "name", "Values": [IMAGE]}])
        self.image = images["Images"][0]["ImageId"] if images["Images"] else ""
        cidr = emulation.subnetwork()
        vpc = self.ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"]
        base = cidr.removesuffix(".0/20").rsplit(".", 1)
        self.subnets = {
            zone: self.ec2.create_subnet(
                VpcId=vpc, AvailabilityZone=zone, CidrBlock=f"{base[0]}.{int(base[1]) + n}.0/24"
            )["Subnet"]["SubnetId"]
            for n, zone in enumerate(("us-east-1a", "us-east-1b"))
        }
        self.host, self.login = Keys.make(), Keys.make()

    def client(self, attempts: int) -> Any:
        session: Any = boto3.Session()
        return session.client(
            "ec2",
            endpoint_url=self.emulation.endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}),
        )

    def user_data(self, **more: object) -> str:
        config: dict[str, object] = {
            "ssh_deletekeys": True,
            "ssh_genkeytypes": [],
            "ssh_keys": {"ed25519_private": self.host.private, "ed25519_public": self.host.public},
            "users": [
                {
                    "name": "tango",
                    "shell": "/bin/sh",
                    "sudo": "ALL=(ALL) NOPASSWD:ALL",
                    "ssh_authorized_keys": [self.login.public],
                },
                {"name": "autograde"},
            ],
            **more,
        }
        return f"#cloud-config\n{json.dumps(config)}"

    def launch(self, zone: str = "us-east-1a", ec2: Any = None, **more: Any) -> Mapping[str, Any]:
        """The one instance of a RunInstances that says this and `more`."""
        wanted = {
            "ImageId": self.image,
            "InstanceType": "t3.micro",
            "SubnetId": self.subnets[zone],
            "UserData": self.user_data(),
            "InstanceInitiatedShutdownBehavior": "terminate",
            "MinCount": 1,
            "MaxCount": 1,
        }
        made: Mapping[str, Any] = (ec2 or self.ec2).run_instances(**wanted | more)["Instances"][0]
        return made

    def status(self, instance: Mapping[str, Any]) -> str:
        """Of its host; empty when it has none."""
        hosts = {host["instance_id"]: host["status"] for host in self.emulation.hosts()}
        return hosts.get(instance["InstanceId"], "")

    def described(self, instance: Mapping[str, Any]) -> Mapping[str, Any]:
        found = self.ec2.describe_instances(InstanceIds=[instance["InstanceId"]])
        described: Mapping[str, Any] = found["Reservations"][0]["Instances"][0]
        return described

    def state(self, instance: Mapping[str, Any]) -> str:
        return str(self.described(instance)["State"]["Name"])

    def ready(self, **more: Any) -> Mapping[str, Any]:
        instance = self.launch(**more)
        wait_until(lambda: self.status(instance) != "booting", SECONDS)
        assert self.status(instance) == "ready", self.emulation.console(instance["InstanceId"])
        return instance

    def command(self, instance: Mapping[str, Any], command: str) -> tuple[int, str]:
        """Exit status and output of a command; the machine must prove its host key."""
        address, port, login = self.emulation.place(instance["PrivateIpAddress"])
        with socket.create_connection((address, port), timeout=5) as raw:
            transport = paramiko.Transport(raw)
            try:
                transport.start_client(timeout=10)
                key = transport.get_remote_server_key()
                if f"{key.get_name()} {key.get_base64()}" not in self.host.public:
                    raise paramiko.BadHostKeyException("", key, key)
                key = paramiko.Ed25519Key(file_obj=io.StringIO(self.login.private))
                transport.auth_publickey(login, key)
                status, out, error = run(transport, command)
                return status, (out + error).decode()
            finally:
                transport.close()


@pytest.fixture(scope="module")
def shared_account(running_emulation: Emulation) -> Account:
    return Account(running_emulation)


@pytest.fixture
def account(shared_account: Account, emulation: Emulation) -> Iterator[Account]:
    yield shared_account
    emulation.clear()
    ids = [host["instance_id"] for host in emulation.hosts()]
    if ids:
        shared_account.ec2.terminate_instances(InstanceIds=ids)
    wait_until(lambda: not emulation.hosts(), SECONDS)


@pytest.fixture
def system(emulation: Emulation) -> None:
    need_systems(emulation)


needs_system = pytest.mark.usefixtures("system")


@needs_system
def test_a_machine_is_what_its_user_data_says(account: Account) -> None:
    file = {"path": "/etc/x/secret", "content": "word", "permissions": "0600"}
    user_data = account.user_data(write_files=[file], runcmd=[["touch", "/var/lib/done"]])
    instance = account.ready(UserData=user_data)
    assert account.command(instance, "id -un; sudo -n id -u")[1] == "tango\n0\n"
    assert account.command(instance, "cat /etc/x/secret")[0] != 0
    assert account.command(instance, "sudo -n cat /etc/x/secret; ls /var/lib/done") == (
        0,
        "word/var/lib/done\n",
    )
    assert not Path("/etc/x").exists()


def test_a_machine_ends_with_its_instance(account: Account) -> None:
    instance = account.ready()
    assert account.command(instance, "echo alive") == (0, "alive\n")
    account.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    wait_until(lambda: not account.status(instance), SECONDS)
    with pytest.raises((OSError, LookupError)):  # unreachable, a time-out, or no address
        account.command(instance, "true")


def test_a_machine_that_is_ended_behind_the_proxy_goes_too(account: Account) -> None:
    instance = account.ready()
    account.emulation.client().terminate_instances(InstanceIds=[instance["InstanceId"]])
    wait_until(lambda: not account.status(instance), SECONDS)


def test_user_data_that_is_not_understood_is_refused_by_name(account: Account) -> None:
    instance = account.launch(UserData=account.user_data(packages=["make"]))
    assert account.status(instance) == "failed: packages: not supported"
    other = account.launch(UserData="#!/bin/sh\n")
    assert not account.status(other), "none of ours: a record, as LocalStack has it"


@needs_system
def test_a_command_that_is_not_understood_is_refused_by_name(account: Account) -> None:
    failed = account.launch(UserData=account.user_data(runcmd=["systemctl mask ssh"]))
    wait_until(lambda: account.status(failed) != "booting", SECONDS)
    assert "not supported: mask ssh" in account.status(failed)


@needs_system
def test_power_off_ends_the_instance(account: Account) -> None:
    instance = account.ready()
    account.command(instance, "sudo -n systemctl poweroff")
    wait_until(lambda: account.state(instance) == "terminated", SECONDS)
    assert account.described(instance)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_a_launch_template_says_what_power_off_does(account: Account) -> None:
    template = account.ec2.create_launch_template(
        LaunchTemplateName=f"t{time.time_ns()}",
        LaunchTemplateData={"InstanceInitiatedShutdownBehavior": "terminate"},
    )["LaunchTemplate"]["LaunchTemplateId"]
    given = {
        "ImageId": account.image,
        "InstanceType": "t3.micro",
        "LaunchTemplate": {"LaunchTemplateId": template, "Version": "1"},
    }
    made = account.ec2.run_instances(MinCount=1, MaxCount=1, **given)["Instances"][0]
    attribute = account.ec2.describe_instance_attribute(
        InstanceId=made["InstanceId"], Attribute="instanceInitiatedShutdownBehavior"
    )
    assert attribute["InstanceInitiatedShutdownBehavior"] == {"Value": "terminate"}


@needs_system
def test_a_timer_fires_at_its_moment(account: Account) -> None:
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + 2))
    units = {
        "end.timer": f"[Timer]\nOnCalendar={moment}\nPersistent=true\n",
        "end.service": "[Service]\nType=oneshot\nExecStart=/bin/systemctl poweroff\n",
    }
    files = [{"path": f"/etc/systemd/system/{k}", "content": text} for k, text in units.items()]
    runcmd = ["systemctl daemon-reload", "systemctl enable --now end.timer"]
    instance = account.ready(UserData=account.user_data(write_files=files, runcmd=runcmd))
    wait_until(lambda: account.state(instance) == "terminated", SECONDS)


@needs_system
def test_the_metadata_service_wants_a_token_and_can_be_kept_from_a_user(account: Account) -> None:
    instance = account.ready()
    url, ask = "http://169.254.169.254/latest", "curl -s -m 5 -w '%{http_code}'"
    assert account.command(instance, f"{ask} {url}/user-data")[1] == "401"
    with_token = (
        f"t=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {url}/api/token);"
        f'curl -s -H "X-aws-ec2-metadata-token: $t" {url}/'
    )
    assert account.command(instance, f"{with_token}user-data")[1] == account.user_data()
    identity = account.command(instance, f"{with_token}meta-data/instance-id")[1]
    assert identity == instance["InstanceId"]
    block = "sudo -n ip rule add to 169.254.169.254 uidrange $u-$u prohibit"
    assert account.command(instance, f"u=$(id -u autograde); {block}")[0] == 0
    assert account.command(instance, f"sudo -n -u autograde {ask} {url}/user-data") == (7, "000")
    assert account.command(instance, f"{ask} {url}/user-data")[1] == "401"


def test_a_client_token_makes_one_instance(account: Account) -> None:
    first = account.launch(ClientToken="one")
    assert account.launch(ClientToken="one")["InstanceId"] == first["InstanceId"]
    with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
        account.launch(ClientToken="one", InstanceType="t3.small")
    account.ec2.terminate_instances(InstanceIds=[first["InstanceId"]])
    wait_until(lambda: not account.status(first), SECONDS)
    with pytest.raises(ClientError, match="IdempotentInstanceTerminated"):
        account.launch(ClientToken="one")


def test_a_lost_response_is_made_good_by_the_token(account: Account) -> None:
    account.emulation.order(Fault("lost-response", times=1))
    with pytest.raises(ConnectionClosedError):
        account.launch(ClientToken="lost")
    (made,) = account.emulation.hosts()
    assert account.launch(ClientToken="lost")["InstanceId"] == made["instance_id"]
    account.emulation.order(Fault("lost-response", times=1))
    account.launch(ec2=account.client(attempts=3))
    assert len(account.emulation.hosts()) == 2, "a client that tries again by itself"


def test_a_fault_strikes_what_it_names_and_nothing_else(account: Account) -> None:
    order = account.emulation.order
    order(Fault("error", code="InsufficientInstanceCapacity", zone="us-east-1a"))
    with pytest.raises(ClientError, match="InsufficientInstanceCapacity"):
        account.launch("us-east-1a")
    account.launch("us-east-1b")
    order(Fault("error", code="RequestLimitExceeded", action="ec2:Describe*", after=1, times=1))
    account.ec2.describe_vpcs()
    with pytest.raises(ClientError, match="RequestLimitExceeded") as caught:
        account.ec2.describe_vpcs()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    account.ec2.describe_vpcs()
    assert account.emulation.calls() == {"ec2:RunInstances": 2, "ec2:DescribeVpcs": 3}


def test_an_instance_that_goes_straight_to_terminated_says_why(account: Account) -> None:
    account.emulation.order(Fault("terminated", code="Client.VolumeLimitExceeded", times=1))
    instance = account.launch()
    assert instance["State"]["Name"] == "pending"
    found = account.described(instance)
    assert (found["State"]["Name"], found["StateReason"]["Code"]) == (
        "terminated",
        "Client.VolumeLimitExceeded",
    )


def tagged(name: str) -> list[dict[str, Any]]:
    return [{"ResourceType": "instance", "Tags": [{"Key": "name", "Value": name}]}]


def shown(account: Account, name: str) -> dict[str, str]:
    """The states of the instances with that tag that a listing has, but of terminated ones."""
    found = account.ec2.describe_instances(
        Filters=[
            {"Name": "tag:name", "Values": [name]},
            {"Name": "instance-state-name", "Values": ["pending", "running", "shutting-down"]},
        ]
    )
    instances = [instance for one in found["Reservations"] for instance in one["Instances"]]
    return {instance["InstanceId"]: instance["State"]["Name"] for instance in instances}


def test_a_listing_is_late_or_lacks_some_on_order(account: Account) -> None:
    one, two = (account.launch(TagSpecifications=tagged("lies"))["InstanceId"] for _ in range(2))
    order = account.emulation.order
    order(Fault("stale", "ec2:DescribeInstances", delay=60, times=1))
    assert shown(account, "lies") == {}
    order(Fault("incomplete", "ec2:DescribeInstances", instance=one, times=1))
    account.ec2.describe_instances(InstanceIds=[one])  # no listing
    assert shown(account, "lies") == {two: "running"}
    assert shown(account, "lies") == {one: "running", two: "running"}
    time.sleep(1)
    account.ec2.terminate_instances(InstanceIds=[one])
    assert shown(account, "lies") == {two: "running"}
    order(Fault("stale", "ec2:DescribeInstances", delay=0.9, times=1))
    assert shown(account, "lies") == {one: "running", two: "running"}
    assert shown(account, "lies") == {two: "running"}


def test_an_instance_takes_the_time_to_go_that_was_ordered(account: Account) -> None:
    dying, dead = (account.launch(TagSpecifications=tagged("slow")) for _ in range(2))
    ids = [instance["InstanceId"] for instance in (dying, dead)]
    account.emulation.order(
        Fault("undying", "ec2:TerminateInstances", delay=1.5, instance=ids[0], times=1)
    )
    for _ in range(2):  # asking again makes it no quicker
        answer = account.ec2.terminate_instances(InstanceIds=ids)["TerminatingInstances"]
        assert {one["InstanceId"] for one in answer} == set(ids)
        assert shown(account, "slow") == {ids[0]: "shutting-down"}
        assert account.status(dying), "it lives meanwhile"
    wait_until(lambda: account.state(dying) == "terminated", SECONDS)
    wait_until(lambda: not account.emulation.hosts(), SECONDS)


def test_a_call_that_is_delivered_twice_is_one_with_a_token(account: Account) -> None:
    order = account.emulation.order
    order(Fault("twice", times=2))
    account.launch(ClientToken="twice", TagSpecifications=tagged("one"))
    assert len(shown(account, "one")) == 1
    account.launch(ClientToken="", TagSpecifications=tagged("two"))
    assert len(shown(account, "two")) == 2
    order(Fault("twice", "ec2:*", times=2))
    account.ec2.terminate_instances(InstanceIds=list(shown(account, "two")))
    assert shown(account, "two") == {}


def test_what_cannot_be_reached_does_nothing(account: Account) -> None:
    account.emulation.order(Fault("unreachable", "ec2:*", times=2))
    for call in (account.launch, account.ec2.describe_vpcs):
        with pytest.raises(ConnectionClosedError):
            call()
    assert account.ec2.describe_vpcs()["Vpcs"]
    assert not account.emulation.hosts()


def test_a_boot_takes_the_time_that_was_ordered(account: Account) -> None:
    account.emulation.order(Fault("pending", delay=1.0, times=1))
    instance = account.launch()
    assert (account.state(instance), account.status(instance)) == ("pending", "booting")
    wait_until(lambda: account.state(instance) == "running", SECONDS)
    wait_until(lambda: account.status(instance) == "ready", SECONDS)


@pytest.mark.parametrize("effect", ["no-boot", "ssh-refused", "wrong-host-key"])
def test_a_host_suffers_what_was_ordered(account: Account, effect: Any) -> None:
    account.emulation.order(Fault(effect, times=1))
    instance = account.launch()
    if effect != "no-boot":
        wait_until(lambda: account.status(instance) == "ready", SECONDS)
    expected = {"wrong-host-key": paramiko.BadHostKeyException, "ssh-refused": ConnectionError}
    with pytest.raises(expected.get(effect, OSError)):
        account.command(instance, "true")
    assert account.state(instance) == "running"


def test_a_host_dies_alone_or_with_its_instance(account: Account) -> None:
    alone, both = account.ready(), account.ready()
    account.emulation.kill_host(alone["InstanceId"])
    account.emulation.kill_host(both["InstanceId"], terminate=True)
    assert (account.status(alone), account.state(alone)) == ("off", "running")
    assert (account.status(both), account.state(both)) == ("", "terminated")


@needs_system
def test_a_spot_instance_hears_of_its_end_first(account: Account) -> None:
    instance = account.ready(InstanceMarketOptions={"MarketType": "spot"})
    url = "http://169.254.169.254/latest"
    ask = (
        f"t=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {url}/api/token);"
        f'curl -s -f -H "X-aws-ec2-metadata-token: $t" {url}/meta-data/spot/instance-action'
    )
    assert account.command(instance, ask)[0] == 22
    account.emulation.interrupt(instance["InstanceId"], 1.5)
    assert json.loads(account.command(instance, ask)[1])["action"] == "terminate"
    wait_until(lambda: account.state(instance) == "terminated", SECONDS)
    assert account.described(instance)["StateReason"]["Code"] == "Server.SpotInstanceTermination"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "course.img"}, "InvalidAMIID.Malformed"),
        ({"InstanceType": "t99.nano"}, "InvalidParameterValue"),
        ({"UserData": "x" * 16385}, "InvalidParameterValue"),
        ({"Tags": [("name", "x" * 257)]}, "InvalidParameterValue"),
        ({"Tags": [("aws:name", "x")]}, "InvalidParameterValue"),
    ],
)
def test_what_ec2_does_not_take_is_refused(
    account: Account, wrong: dict[str, Any], code: str
) -> None:
    if "Tags" in wrong:
        tags = [{"Key": key, "Value": value} for key, value in wrong["Tags"]]
        wrong = {"TagSpecifications": [{"ResourceType": "instance", "Tags": tags}]}
    with pytest.raises(ClientError, match=code):
        account.launch(**wrong)


def test_an_image_of_an_instance_has_a_name_of_its_own_and_snapshots_with_tags(
    account: Account,
) -> None:
    ec2, instance = account.ec2, account.launch()["InstanceId"]
    given = [{"Key": "name", "Value": "of-an-image"}]
    kinds = [{"ResourceType": kind, "Tags": given} for kind in ("image", "snapshot")]
    made = ec2.create_image(InstanceId=instance, Name="once", TagSpecifications=kinds)["ImageId"]
    filters = [{"Name": "tag:name", "Values": ["of-an-image"]}]
    (image,) = ec2.describe_images(Owners=["self"], Filters=filters)["Images"]
    assert image["ImageId"] == made
    (snapshot,) = ec2.describe_snapshots(Filters=filters)["Snapshots"]
    (mapping,) = image["BlockDeviceMappings"]
    assert mapping["Ebs"]["SnapshotId"] == snapshot["SnapshotId"]
    with pytest.raises(ClientError, match="InvalidAMIName"):
        ec2.create_image(InstanceId=instance, Name="once")
    with pytest.raises(ClientError, match="InUse"):
        ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
    ec2.deregister_image(ImageId=made)
    ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])


def test_large_objects_go_through_unchanged(account: Account) -> None:
    session: Any = boto3.Session()
    s3 = session.client(
        "s3",
        endpoint_url=account.emulation.endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(s3={"addressing_style": "path"}),
    )
    data = os.urandom(5_000_000)
    s3.create_bucket(Bucket="large")
    s3.put_object(Bucket="large", Key="a folder/ü+%", Body=data)
    assert s3.get_object(Bucket="large", Key="a folder/ü+%")["Body"].read() == data
    assert s3.head_object(Bucket="large", Key="a folder/ü+%")["ContentLength"] == len(data)


def test_many_hosts_begin_and_end_together(account: Account) -> None:
    began = time.monotonic()
    account.ec2.run_instances(
        ImageId=account.image,
        InstanceType="t3.micro",
        SubnetId=account.subnets["us-east-1a"],
        UserData=account.user_data(),
        MinCount=20,
        MaxCount=20,
    )
    wait_until(lambda: {host["status"] for host in account.emulation.hosts()} == {"ready"}, SECONDS)
    assert len(account.emulation.hosts()) == 20
    assert time.monotonic() - began < SECONDS
