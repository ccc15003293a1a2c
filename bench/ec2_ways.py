"""Other ways to make machines on EC2: with Terraform as one would by hand, and without it."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from bench.deployment import GONE_SECONDS, PREFIX
from bench.ways import BareWay, at_once
from tango_cloud.core.model import MachineRequest, Shape
from tango_cloud.core.settings import Settings
from tango_cloud.terraform import command
from tango_cloud.terraform.binary import resolve
from tango_cloud.terraform.environment import find_mirror, terraform_environment, write_cli_config
from tango_cloud.terraform.runner import Terraform

_CONNECTIONS = 256
_BY_HAND = """\
terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

variable "machines" {
  type = map(any)
}

variable "user_data" {
  type      = map(string)
  sensitive = true
}

resource "aws_instance" "machine" {
  for_each = var.machines

  ami                    = each.value.image
  instance_type          = each.value.instance_type
  subnet_id              = each.value.subnet
  vpc_security_group_ids = [each.value.security_group]
  user_data              = var.user_data[each.key]
  tags                   = each.value.tags
  volume_tags            = each.value.tags
}
"""


class Ec2Way(BareWay):
    def __init__(self, settings: Settings, shape: Shape) -> None:
        super().__init__(settings, shape)
        self.folder = settings.state_dir
        envelope = settings.state_dir / PREFIX / "envelope" / "aws" / "envelope.json"
        self.envelope: Mapping[str, Any] = json.loads(envelope.read_text())

    def remove(self) -> None:
        super().remove()
        self.wait_until_gone()

    def wait_until_gone(self) -> None:
        deadline = time.monotonic() + GONE_SECONDS
        while self._provider.instances(PREFIX):
            if time.monotonic() > deadline:
                raise TimeoutError("instances are left")
            time.sleep(0.1)

    def machine(self, request: MachineRequest) -> Any:
        return self._provider.wave_machines([request])[request.uid]


class RunInstances(Ec2Way):
    """The floor: boto3 asks EC2 for all at once. Nothing is written down, there is no Terraform."""

    def __init__(self, settings: Settings, shape: Shape) -> None:
        super().__init__(settings, shape)
        self._ec2: Any = boto3.client(
            "ec2",
            region_name=os.environ["AWS_REGION"],
            config=Config(max_pool_connections=_CONNECTIONS),
        )

    def make(self, count: int) -> None:
        at_once(lambda _: self._make_one(), range(count))

    def _make_one(self) -> None:
        request, host_key = self.order()
        machine = self.machine(request)
        labels = [{"Key": key, "Value": text} for key, text in machine["tags"].items()]
        self._ec2.run_instances(
            MinCount=1,
            MaxCount=1,
            LaunchTemplate={"LaunchTemplateId": self.envelope["launch_template_id"]},
            ImageId=machine["image"],
            InstanceType=machine["instance_type"],
            SubnetId=self.envelope["subnets"][machine["zone"]],
            SecurityGroupIds=[self.envelope["security_group_id"]],
            UserData=request.user_data,
            TagSpecifications=[
                {"ResourceType": kind, "Tags": labels} for kind in ("instance", "volume")
            ],
        )
        self.greet(request.uid, host_key)


class SeparateApplies(Ec2Way):
    """A state and an apply for each machine, so many at a time, with our module and our options."""

    def __init__(self, settings: Settings, shape: Shape, at_a_time: int) -> None:
        super().__init__(settings, shape)
        self._at_a_time = at_a_time

    def make(self, count: int) -> None:
        with ThreadPoolExecutor(self._at_a_time) as pool:
            for done in [pool.submit(self._make_one) for _ in range(count)]:
                done.result()

    def _make_one(self) -> None:
        request, host_key = self.order()
        applied = self._stacks.apply(
            self._provider.name,
            request.uid,
            [request],
            on_created=lambda _: None,
            on_start=lambda _: None,
        )
        if applied.failure is not None:
            raise applied.failure
        self.greet(request.uid, host_key)


class OneApply(Ec2Way):
    """A configuration as a person would write it, applied once for all, and removed likewise.

    Machines are waited for once Terraform has returned.
    """

    def __init__(self, settings: Settings, shape: Shape) -> None:
        super().__init__(settings, shape)
        self._scratch = Path(tempfile.mkdtemp(dir=self.folder, prefix="by-hand-"))
        (self._scratch / "main.tf").write_text(_BY_HAND)
        self._terraform = terraform_of(self._scratch)
        self._terraform.run(command.init(), self._scratch)
        self._count = 0

    def make(self, count: int) -> None:
        self._count = count
        orders = [self.order() for _ in range(count)]
        machines = {}
        for request, _ in orders:
            machine = self.machine(request)
            machines[request.uid] = {
                "image": machine["image"],
                "instance_type": machine["instance_type"],
                "subnet": self.envelope["subnets"][machine["zone"]],
                "security_group": self.envelope["security_group_id"],
                "tags": machine["tags"],
            }
        variables = {
            "machines": machines,
            "user_data": {request.uid: request.user_data for request, _ in orders},
        }
        (self._scratch / "terraform.tfvars.json").write_text(json.dumps(variables))
        self._run("apply")
        at_once(lambda order: self.greet(order[0].uid, order[1]), orders)

    def remove(self) -> None:
        self.close()
        self._run("destroy")
        self.wait_until_gone()

    def _run(self, verb: str) -> None:
        options = ["-auto-approve", "-refresh=false", f"-parallelism={self._count}"]
        self._terraform.run([verb, "-input=false", "-no-color", *options], self._scratch)


def terraform_of(folder: Path, plugin_cache: Path | None = None) -> Terraform:
    """A Terraform with this process' credentials and a CLI configuration of its own in `folder`."""
    configuration = write_cli_config(folder / "cli.tfrc", find_mirror())
    environment = terraform_environment(
        os.environ, cli_config=configuration, plugin_cache=plugin_cache
    )
    return Terraform(resolve(), environment)
