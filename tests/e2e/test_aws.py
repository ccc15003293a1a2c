"""The main job on an emulated EC2, from the command line, with machines that really answer SSH."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from emulation.client import Emulation

from ..aws import AwsDeployment, make_aws_deployment, need_systems
from .main_job import run_main_job


def test_the_main_job(aws: AwsDeployment) -> None:
    run_main_job(aws, "--machines", "3")
    gone = aws.described("terminated")
    assert len({instance["InstanceId"] for instance in gone}) >= 3


def test_a_job_is_kept_from_the_metadata_service_and_root_is_not_among_its_powers(
    aws: AwsDeployment,
) -> None:
    """User data stands there: the bootstrap host key, for one."""
    need_systems(aws.emulation)
    ask = "curl -s -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60'"
    job = aws.job(
        "curious",
        f"all:\n\t@id -un; {ask} http://169.254.169.254/latest/api/token; echo curl $$?\n"
        "\t@sudo -n true 2>/dev/null; echo sudo $$?\n",
    )
    done = aws.run("run", job, "--json")
    output = (aws.folder / "output" / "curious.txt").read_text()
    assert done.returncode == 0, done.stderr + output
    who, curl, sudo = output.splitlines()[1:]
    assert who == "autograde"
    assert curl == "curl 7", "it could not connect"
    assert sudo != "sudo 0"


def test_interrupted_it_leaves_nothing(aws: AwsDeployment) -> None:
    job, mark = aws.sleeper("slow")
    process = aws.start("run", job)
    aws.wait_until_running(mark)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=90)
    assert process.returncode == 130, told
    assert "nothing is left" in told
    assert aws.instances() == []


def test_kept_machines_are_listed_and_destroyed_and_the_envelope_goes_last(
    emulation: Emulation, tmp_path: Path
) -> None:
    network = {"TANGO_CLOUD_AWS__NETWORK_CIDR": emulation.subnetwork()}
    aws = make_aws_deployment(tmp_path, emulation, tmp_path / "state", "kept", **network)
    assert aws.run("run", aws.job("job", "all:\n\ttrue\n"), "--keep").returncode == 0
    (listed,) = json.loads(aws.run("vms", "--json").stdout)
    (described,) = aws.described()
    assert listed["instance_id"] == described["InstanceId"]
    assert listed["address"] == emulation.place(described["PrivateIpAddress"])[0]
    refused = aws.run("destroy", "--envelope")
    assert (refused.returncode, "machines" in refused.stderr) == (2, True)
    assert aws.run("destroy", "--all").returncode == 0
    ec2 = emulation.client()
    mine = [{"Name": "tag:tango-deployment", "Values": ["kept"]}]
    # Somebody removes a part of the envelope: it is made anew, and its end is not hindered.
    (template,) = ec2.describe_launch_templates(Filters=mine)["LaunchTemplates"]
    ec2.delete_launch_template(LaunchTemplateId=template["LaunchTemplateId"])
    done = aws.run("run", str(aws.folder / "jobs" / "job"))
    assert done.returncode == 0, done.stderr
    (template,) = ec2.describe_launch_templates(Filters=mine)["LaunchTemplates"]
    ec2.delete_launch_template(LaunchTemplateId=template["LaunchTemplateId"])
    done = aws.run("destroy", "--all", "--envelope")
    assert done.returncode == 0, done.stderr
    aws.assert_nothing_left()
    assert ec2.describe_vpcs(Filters=mine)["Vpcs"] == []
    assert ec2.describe_launch_templates(Filters=mine)["LaunchTemplates"] == []
    assert ec2.describe_security_groups(Filters=mine)["SecurityGroups"] == []
