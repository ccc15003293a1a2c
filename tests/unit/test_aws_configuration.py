"""Which account, which region, who may connect: what is read, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tango_cloud.core.errors import AuthenticationError, ConfigurationError
from tango_cloud.core.sections import AwsSettings
from tango_cloud.core.settings import load
from tango_cloud.providers import network as network_module
from tango_cloud.providers.aws import AwsProvider, from_settings
from tango_cloud.providers.aws.clients import Clients

pytestmark = pytest.mark.usefixtures("aws_configuration")


def test_ssh_is_open_to_this_host_alone_or_it_must_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "_own_address", lambda: ["192.0.2.7/32"])
    assert network_module.ssh_from("aws.ssh_from", ()) == ["192.0.2.7/32"]
    assert network_module.ssh_from("aws.ssh_from", ("10.0.0.0/8",)) == ["10.0.0.0/8"]
    monkeypatch.setattr(network_module, "_own_address", list)
    with pytest.raises(ConfigurationError, match=r"aws\.ssh_from"):
        network_module.ssh_from("aws.ssh_from", ())


def test_the_region_in_terraforms_order(
    aws_configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws_configuration.write_text("[default]\nregion = r1\n[profile other]\nregion = r2\n")

    def region(setting: str | None = None, profile: str | None = None) -> tuple[str, str]:
        found = Clients(setting, profile).region
        return found.name, found.source

    assert region() == ("r1", "from the profile default")
    assert region(profile="other") == ("r2", "from the profile other")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "r3")
    assert region() == ("r3", "from AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "r4")
    assert region() == ("r4", "from AWS_REGION")
    assert region("r5") == ("r5", "from aws.region")


def test_terraform_goes_where_boto_goes(aws_configuration: Path) -> None:
    aws_configuration.write_text("[profile other]\nregion = r2\n")
    assert Clients("r1", None).environment() == {"AWS_REGION": "r1"}
    other = Clients(None, "other").environment()
    assert (other["AWS_REGION"], other["AWS_PROFILE"]) == ("r2", "other")
    # The plugin would take these keys before the profile, boto3 would not.
    assert other["AWS_ACCESS_KEY_ID"] == ""
    assert other["AWS_SECRET_ACCESS_KEY"] == ""


def test_nothing_is_asked_before_the_first_question_which_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigurationError, match=r"no region is set.*us-east-1"):
        AwsProvider(AwsSettings(), "prod").instances("prod")
    with pytest.raises(ConfigurationError, match="nobody"):
        AwsProvider(AwsSettings(profile="nobody"), "prod").environment()
    with pytest.raises(ConfigurationError, match="AWS_REGION"):
        AwsProvider(AwsSettings(region="US East"), "prod").images()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(ConfigurationError, match="AWS_ENDPOINT_URL"):
        AwsProvider(AwsSettings(region="us-east-1"), "prod").images()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    nameless = AwsProvider(AwsSettings(region="us-east-1"), "prod")
    with pytest.raises(AuthenticationError, match="aws sso login"):
        nameless.instances("prod")
    region, identity = nameless.diagnose()
    assert (region.ok, identity.ok) == (True, False)
    assert "AWS_PROFILE" in identity.remedy
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half")
    with pytest.raises(AuthenticationError, match="AWS_SECRET_ACCESS_KEY"):
        AwsProvider(AwsSettings(region="us-east-1"), "prod").terminate(["i-0a"])


@pytest.mark.parametrize(
    ("aws", "fault"),
    [
        ({"public_address": True}, r"aws\.public_address: .*aws\.ssh_from"),
        ({"vpc_id": "vpc-1"}, r"aws\.subnet_ids: .*aws\.vpc_id"),
        ({"subnet_ids": ["subnet-1"]}, r"aws\.subnet_ids: .*aws\.vpc_id"),
        ({"vpc_id": "my network", "subnet_ids": ["subnet-1"]}, r"aws\.vpc_id: "),
        ({"network_cidr": "10.0.0.0"}, r"aws\.network_cidr: .*/16 to /25"),
        ({"network_cidr": "10.0.0.0/8"}, r"aws\.network_cidr: .*/16 to /25"),
        ({"network_cidr": "10.87.0.1/20"}, r"aws\.network_cidr: "),
        ({"ssh_from": ["0.0.0.0/0"]}, r"aws\.ssh_from\.0: .*/8"),
        ({"ssh_from": ["192.0.2.7/32", "::/0"]}, r"aws\.ssh_from\.1: .*/32"),
        ({"ssh_from": ["here"]}, r"aws\.ssh_from\.0: "),
        ({"markets": ["reserved"]}, r"aws\.markets\.0: .*'on-demand' or 'spot'"),
        ({"instance_types": []}, r"aws\.instance_types: "),
        ({"endpoint": "x"}, r"aws\.endpoint: unknown setting"),
    ],
)
def test_faults_of_the_settings(aws: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        load({"aws": aws})


def test_the_settings_reach_the_provider() -> None:
    aws = {"ssh_from": ["2001:db8::7/128"], "public_address": True, "zones": ["us-east-1a"]}
    made = from_settings(load({"prefix": "prod", "aws": aws}))
    variables = made.envelope_variables("prod")
    assert made.compress
    assert (variables["zones"], variables["public_address"]) == (["us-east-1a"], True)
