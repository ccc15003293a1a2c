"""Two orchestrators of one deployment, as on two hosts: they share the ledger, and the states in a
bucket. Each has a state folder, a client key and initialised modules of its own.

The ledger is one SQLite file that both can reach: it stands in for PostgreSQL.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from emulation.client import Emulation, Fault

from ..aws import AwsDeployment, make_aws_deployment
from ..deployment import leaving_nothing
from ..waiting import wait_until

PREFIX = "shared"
OK = "all:\n\t@echo ran\n"
ENVELOPE = f"team/{PREFIX}/envelope/aws/tango-cloud.tfstate"


@dataclass
class Hosts:
    """`here` and `there`, and the bucket."""

    here: AwsDeployment
    there: AwsDeployment
    bucket: str

    def objects(self) -> Sequence[str]:
        listed = self.here.emulation.client("s3").list_objects_v2(Bucket=self.bucket)
        return [found["Key"] for found in listed.get("Contents", [])]

    def templates(self) -> int:
        """How many envelopes there are."""
        mine = [{"Name": "tag:tango-deployment", "Values": [PREFIX]}]
        ec2 = self.here.emulation.client()
        return len(ec2.describe_launch_templates(Filters=mine)["LaunchTemplates"])


@pytest.fixture
def hosts(emulation: Emulation, aws_network: dict[str, str], tmp_path: Path) -> Iterator[Hosts]:
    bucket = tmp_path.name.replace("_", "-")
    emulation.client("s3").create_bucket(Bucket=bucket)
    shared = {
        "TANGO_CLOUD_LEDGER_URL": f"sqlite:///{tmp_path / 'ledger.sqlite3'}",
        "TANGO_CLOUD_TERRAFORM__REMOTE_STATE": f"s3://{bucket}/team",
    }

    def host(name: str) -> AwsDeployment:
        folder = tmp_path / name
        folder.mkdir()
        return make_aws_deployment(
            folder, emulation, folder / "state", PREFIX, **aws_network, **shared
        )

    made = Hosts(host("here"), host("there"), bucket)
    for one in (made.here, made.there):
        # Either may make the machine that the other asked for, which lets in whom it knows of.
        assert one.run("vms").returncode == 0
    with leaving_nothing(made.here), leaving_nothing(made.there):
        yield made
        assert made.objects() == []
        assert made.templates() == 0


@pytest.mark.slow
def test_two_orchestrators_of_one_deployment(hosts: Hosts) -> None:
    here, there = hosts.here, hosts.there
    running = [
        here.start("run", here.job("job", OK)),
        there.start("run", there.job("job", OK), "--keep"),
    ]
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert hosts.templates() == 1
    # One may have made both machines in one wave.
    assert len(hosts.objects()) == 2, "the envelope's, and one wave's"
    assert len(json.loads(here.run("vms", "--json").stdout)) == 1
    done = here.run("destroy", "--all")
    assert done.returncode == 0, done.stderr
    assert here.instances() == []
    assert hosts.objects() == [ENVELOPE]

    done = there.run("destroy", "--envelope")
    assert done.returncode == 0, done.stderr
    assert (hosts.objects(), hosts.templates()) == ([], 0)


def test_what_one_killed_in_the_middle_leaves_is_removed_by_the_other(hosts: Hosts) -> None:
    here, there = hosts.here, hosts.there
    # The instance exists, and Terraform goes on to wait for it.
    here.emulation.order(Fault("pending", delay=600))
    process = here.start("run", here.job("job", OK))
    wait_until(here.instances, 150)
    _kill(process.pid)
    process.communicate()
    shutil.rmtree(here.state)
    here.emulation.clear()
    locks = [key for key in hosts.objects() if key.endswith(".tflock")]
    assert len(locks) == 1, "its wave's"
    assert "/waves/" in locks[0]
    done = there.run("destroy", "--all", "--envelope")
    assert done.returncode == 0, done.stderr
    assert "its state stays locked" not in done.stderr


def _kill(pid: int) -> None:
    """A process and all that it has started, as if at one moment."""
    first = psutil.Process(pid)
    first.suspend()
    for process in (*first.children(recursive=True), first):
        process.send_signal(signal.SIGKILL)
