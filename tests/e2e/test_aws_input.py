"""What a person gets wrong about Amazon EC2, from the command line: told at once, nothing made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from emulation.client import Emulation

from ..aws import IMAGE, AwsDeployment, make_aws_deployment

OK = "all:\n\ttrue\n"
NOBODY = {
    "AWS_ACCESS_KEY_ID": "",
    "AWS_SECRET_ACCESS_KEY": "",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}
NETWORK = {"VPC_ID": "vpc-0123456789abcdef0", "SUBNET_IDS": '["subnet-0123456789abcdef0"]'}
SMALL = {"INSTANCE_TYPES": '["t3.*"]'}


@pytest.fixture
def aws(emulation: Emulation, aws_state: Path, tmp_path: Path) -> Iterator[AwsDeployment]:
    """Every endpoint is the emulation's, whatever the region."""
    deployment = make_aws_deployment(tmp_path, emulation, aws_state, "input")
    deployment.environment["TANGO_CLOUD_PROVIDER"] = "local"  # the option says otherwise
    yield deployment
    deployment.assert_nothing_left()


def run(aws: AwsDeployment, *options: str, **more: str) -> CompletedProcess[str]:
    return aws.run("run", aws.job("job", OK), "--provider", "aws", *options, **more)


def variables(settings: dict[str, str]) -> dict[str, str]:
    return {f"TANGO_CLOUD_AWS__{name}": text for name, text in settings.items()}


def assert_refused(aws: AwsDeployment, done: CompletedProcess[str], status: int, told: str) -> None:
    said = " ".join(done.stderr.split())
    assert done.returncode == status, said
    assert told in said
    assert "Traceback" not in done.stderr
    calls = aws.emulation.calls()
    assert not [name for name in calls if not name.startswith(("ec2:Describe", "sts:Get"))], calls
    assert aws.instances() == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"SSH_FROM": '["10.0.0.300/32"]'},
            "aws.ssh_from.0 (TANGO_CLOUD_AWS__SSH_FROM): '10.0.0.300/32' will not do",
        ),
        ({"ZONE": "us-east-1a"}, "TANGO_CLOUD_AWS__ZONE: unknown setting"),
        ({"PROFILE": "nobody"}, "profile (nobody) could not be found (expected a profile of"),
        ({"REGION": "us east 1"}, "(expected aws.region or AWS_REGION, for instance us-east-1)"),
    ],
)
def test_wrong_settings_are_refused_without_asking(
    aws: AwsDeployment, settings: dict[str, str], told: str
) -> None:
    done = run(aws, **variables(settings))
    assert_refused(aws, done, 2, told)
    assert not aws.emulation.calls()


def test_no_region_is_a_fault_of_the_settings(aws: AwsDeployment) -> None:
    done = run(aws, AWS_REGION="")
    assert_refused(aws, done, 2, "no region is set (expected aws.region or AWS_REGION")


def test_no_credentials_are_told_with_the_ways_to_give_some(aws: AwsDeployment) -> None:
    done = run(aws, **NOBODY)
    assert_refused(aws, done, 3, "Unable to locate credentials; give credentials in one of")


@pytest.mark.parametrize(
    ("endpoint", "status", "told"),
    [
        ("http://127.0.0.1:9", 3, 'AWS did not answer: Could not connect to the endpoint URL: "'),
        ("localhost", 2, "Invalid endpoint: localhost (expected a URL in AWS_ENDPOINT_URL)"),
    ],
)
def test_an_endpoint_that_does_not_answer_is_named(
    aws: AwsDeployment, endpoint: str, status: int, told: str
) -> None:
    assert_refused(aws, run(aws, AWS_ENDPOINT_URL=endpoint), status, told)


@pytest.mark.slow
def test_a_region_that_does_not_exist(aws: AwsDeployment) -> None:
    """Only Terraform's plugin knows that here: at the real endpoints no name would be found."""
    if aws.emulation.backend == "moto":
        pytest.skip("moto's server breaks on a region that it does not know")
    done = run(aws, AWS_REGION="us-nowhere-7")
    assert_refused(aws, done, 3, "invalid AWS Region: us-nowhere-7 (expected aws.region or")
    assert json.loads(aws.run("vms", "--json", TANGO_CLOUD_PROVIDER="aws").stdout) == []


@pytest.mark.parametrize(
    ("options", "settings", "told"),
    [
        (["--image", "nope.img"], {}, f"of aws.image_owners (self) (expected one of: {IMAGE})"),
        (["--cores", "99999"], {}, "(expected at most what the nearest has, t3.2xlarge: 8 cores"),
        (["--memory", "99999999"], {}, "(expected at most what the nearest has, t3.2xlarge"),
        ([], {"INSTANCE_TYPES": '["x99*"]'}, "no type of this region is like x99*"),
        ([], {"ZONES": '["us-east-1z"]'}, "expected some of: us-east-1a, us-east-1b"),
        ([], NETWORK, "'subnet-0123456789abcdef0' does not exist (expected subnets in us-east-1)"),
    ],
)
def test_what_cannot_be_had_is_said(
    aws: AwsDeployment, options: list[str], settings: dict[str, str], told: str
) -> None:
    assert_refused(aws, run(aws, *options, **variables(SMALL | settings)), 2, told)


def test_doctor_examines_the_account(aws: AwsDeployment) -> None:
    done = aws.run("doctor", "--json", TANGO_CLOUD_PROVIDER="aws", **variables(SMALL))
    found = {check["subject"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert found["AWS region"]["finding"] == "us-east-1 (from AWS_REGION)"
    account = aws.emulation.client("sts").get_caller_identity()["Account"]
    assert f"account {account}" in found["AWS identity"]["finding"]
    assert IMAGE in found["images"]["finding"]
    assert found["a default machine"]["finding"].startswith("t3.small, on-demand; ")
    assert "tango-deployment = input" in found["AWS permissions"]["finding"]
    assert "(this host's own address)" in found["SSH from"]["finding"]
    assert found["quota of on-demand vCPUs"]["ok"]
    assert not [check for check in found.values() if check["ok"] and check["remedy"]]
    plain = aws.run("doctor", TANGO_CLOUD_PROVIDER="aws", **variables(SMALL)).stdout
    for subject, check in found.items():
        assert f"✓ {subject}: {check['finding']}" in plain.splitlines()
    assert aws.instances() == []


@pytest.mark.parametrize(
    ("subject", "remedy", "more"),
    [
        ("AWS region", "set aws.region or AWS_REGION", {"AWS_REGION": ""}),
        ("AWS identity", "give credentials in one of the usual AWS ways", NOBODY),
        ("AWS identity", "see the error", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}),
        ("a default machine", "correct the settings", variables({"INSTANCE_TYPES": '["x99*"]'})),
        ("images", "make an AMI with a tag Name", variables({"IMAGE_OWNERS": '["210987654321"]'})),
        ("settings", "correct it in tango-cloud.toml", variables({"NETWORK_CIDR": "nonsense"})),
    ],
)
def test_doctor_says_what_to_do_about_a_fault(
    aws: AwsDeployment, subject: str, remedy: str, more: dict[str, str]
) -> None:
    done = aws.run("doctor", "--json", **{"TANGO_CLOUD_PROVIDER": "aws", **more})
    faults = {c["subject"]: c["remedy"] for c in json.loads(done.stdout) if not c["ok"]}
    assert done.returncode == 1
    assert faults[subject].startswith(remedy)
    assert "Traceback" not in done.stderr
