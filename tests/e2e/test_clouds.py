"""One deployment across Amazon EC2, Compute Engine and this host at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
from emulation.client import Fault as Ec2Fault

from ..aws import AwsDeployment
from ..compute.client import ComputeEmulation
from ..deployment import leaving_nothing
from ..gcp import ZONES, GcpDeployment

IMAGE = "course"
OK = "all:\n\t@echo ran\n"
PRICES = {"aws/t3.small": 0.02, "gcp/e2-standard-2": 0.03}


@dataclass
class Clouds:
    """One deployment, by what each of two clouds shows of it."""

    aws: AwsDeployment
    gcp: GcpDeployment

    def run(self, name: str, *options: str) -> str:
        """A job of its own for the machine that it gets; the cloud that made it."""
        done = self.aws.run("run", self.aws.job(name, OK), "--image", IMAGE, "--keep", *options)
        assert done.returncode == 0, done.stderr
        return self.listed()[-1]["provider"]

    def listed(self) -> list[dict[str, str]]:
        listed: list[dict[str, str]] = json.loads(self.aws.run("vms", "--json").stdout)
        return listed


@pytest.fixture
def clouds(
    aws: AwsDeployment,
    compute: ComputeEmulation,
    gcp_network: dict[str, str],
    google_plugin: Mapping[str, str],
) -> Iterator[Clouds]:
    aws.emulation.register_image(IMAGE)
    aws.environment |= {
        **compute.environment,
        **gcp_network,
        **google_plugin,
        "TANGO_CLOUD_PROVIDER": "gcp,aws,local",
        "TANGO_CLOUD_PRICES": json.dumps(PRICES),
        "TANGO_CLOUD_AWS__INSTANCE_TYPES": '["t3.small"]',
        "TANGO_CLOUD_AWS__ZONES": '["us-east-1a"]',
        "TANGO_CLOUD_GCP__MACHINE_TYPES": '["e2-standard-2"]',
        "TANGO_CLOUD_GCP__ZONES": json.dumps(ZONES),
        "TANGO_CLOUD_LOCAL__IMAGES": json.dumps([IMAGE]),
    }
    gcp = GcpDeployment(aws.folder, aws.environment, emulation=compute)
    with leaving_nothing(gcp):
        yield Clouds(aws, gcp)


def test_a_job_goes_to_the_cheapest_cloud_that_gives_a_machine(clouds: Clouds) -> None:
    """This host costs nothing; then it has no room."""
    assert clouds.run("first") == "local"
    clouds.aws.environment["TANGO_CLOUD_LOCAL__IMAGES"] = '["another.img"]'
    assert clouds.run("second") == "aws"
    clouds.aws.emulation.order(Ec2Fault("error", code="InsufficientInstanceCapacity"))
    assert clouds.run("third") == "gcp"
    listed = [(row["provider"], row["state"]) for row in clouds.listed()]
    assert listed == [("local", "ready"), ("aws", "ready"), ("gcp", "ready")]
    done = clouds.aws.run("destroy", "--all")
    assert done.returncode == 0, done.stderr
    assert clouds.listed() == []
