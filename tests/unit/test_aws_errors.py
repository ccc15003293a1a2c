"""What EC2, boto3 and Terraform's plugin say, and what the caller does next."""

from __future__ import annotations

import pytest
from botocore import exceptions as boto
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from tango_cloud.core.errors import (
    AuthenticationError,
    CapacityError,
    ConfigurationError,
    NextMove,
    ProviderUnavailable,
    ProvisioningError,
    QuotaError,
    TangoCloudError,
    TerraformError,
)
from tango_cloud.core.sections import AwsSettings
from tango_cloud.providers.aws import AwsProvider, errors

Kind = type[TangoCloudError]

CODES: list[tuple[str, Kind]] = [
    ("InsufficientInstanceCapacity", CapacityError),
    ("InsufficientHostCapacity", CapacityError),
    ("InsufficientFreeAddressesInSubnet", CapacityError),
    ("Unsupported", CapacityError),
    ("SpotMaxPriceTooLow", CapacityError),
    ("VcpuLimitExceeded", QuotaError),
    ("InstanceLimitExceeded", QuotaError),
    ("MaxSpotInstanceCountExceeded", QuotaError),
    ("VolumeLimitExceeded", QuotaError),
    ("SomeLimitOfTomorrowLimitExceeded", QuotaError),
    ("RequestLimitExceeded", ProviderUnavailable),
    ("Throttling", ProviderUnavailable),
    ("ThrottlingException", ProviderUnavailable),
    ("RequestThrottled", ProviderUnavailable),
    ("InternalError", ProviderUnavailable),
    ("Unavailable", ProviderUnavailable),
    ("InvalidInstanceID.NotFound", ProviderUnavailable),
    ("UnauthorizedOperation", AuthenticationError),
    ("AuthFailure", AuthenticationError),
    ("ExpiredToken", AuthenticationError),
    ("ExpiredTokenException", AuthenticationError),
    ("RequestExpired", AuthenticationError),
    ("InvalidClientTokenId", AuthenticationError),
    ("SignatureDoesNotMatch", AuthenticationError),
    ("OptInRequired", AuthenticationError),
    ("InvalidAMIID.NotFound", ConfigurationError),
    ("InvalidAMIID.Malformed", ConfigurationError),
    ("InvalidParameterValue", ConfigurationError),
    ("InvalidParameterCombination", ConfigurationError),
    ("InvalidLaunchTemplateId.NotFound", ConfigurationError),
    ("InvalidSubnetID.NotFound", ConfigurationError),
    ("AnErrorOfTomorrow", ProvisioningError),
]


def client_error(code: str, message: str = "no", status: int = 400) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {
                "HTTPStatusCode": status,
                "RequestId": "",
                "HostId": "",
                "HTTPHeaders": {},
                "RetryAttempts": 0,
            },
        },
        "RunInstances",
    )


def diagnostic(code: str, message: str = "no", status: int = 400) -> str:
    """As the plugin has it."""
    return (
        f"creating EC2 Instance: operation error EC2: RunInstances, https response error "
        f"StatusCode: {status}, RequestID: 5b9f1e3e-0000, api error {code}: {message}"
    )


@pytest.mark.parametrize(("code", "kind"), CODES)
def test_one_table_serves_boto_and_terraform(code: str, kind: Kind) -> None:
    for error in (
        errors.from_boto(client_error(code, "the reason")),
        errors.from_terraform(diagnostic(code, "the reason")),
    ):
        assert type(error) is kind
        assert code in str(error)
        assert "the reason" in str(error)


def test_a_fault_of_the_service_is_passing_whatever_it_is_called() -> None:
    assert isinstance(errors.from_boto(client_error("Odd", status=503)), ProviderUnavailable)
    assert isinstance(errors.from_terraform(diagnostic("Odd", status=503)), ProviderUnavailable)


_ENDED = "waiting for EC2 Instance (i-0abc) create: unexpected state 'terminated', wanted target"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"{_ENDED} 'running'. last error: Client.VolumeLimitExceeded: Volume limit", QuotaError),
        (f"{_ENDED} 'running'. last error: Server.InsufficientInstanceCapacity: x", CapacityError),
        (f"{_ENDED} 'running'. last error: Server.InternalError: on launch", ProviderUnavailable),
        (f"{_ENDED} 'running'. last error: Server.SpotInstanceTermination: x", CapacityError),
        # A KMS key that may not be used; EC2 does not say so.
        (f"{_ENDED} 'running'. last error: Client.InternalError: on launch", ConfigurationError),
        (f"{_ENDED} 'running'. last error: Client.UserInitiatedShutdown: x", ProvisioningError),
        (f"{_ENDED} 'running', last error: %!s(<nil>)", ProvisioningError),
        ("exceeded maximum number of attempts, 5, request send failed", ProviderUnavailable),
        ("waiting for EC2 Instance (i-0abc) create: couldn't find resource", ProviderUnavailable),
        ("reading EC2 Instance (i-0abc): couldn't find resource", ProviderUnavailable),
        ("No valid credential sources found", AuthenticationError),
        ("failed to refresh cached credentials, no EC2 IMDS role found", AuthenticationError),
        ("Invalid AWS Region: nowhere", ConfigurationError),
        ("invalid AWS Region: nowhere", ConfigurationError),
        ("failed to get shared config profile, nobody", ConfigurationError),
        ("Something else altogether", ProvisioningError),
    ],
)  # fmt: skip
def test_what_terraform_says_without_a_code(text: str, kind: Kind) -> None:
    assert type(errors.from_terraform(text)) is kind


def test_a_failed_apply_is_classified_by_what_it_says_of_the_machine() -> None:
    failed = TerraformError(["terraform", "apply"], 1, "", [diagnostic("VcpuLimitExceeded")])
    found = AwsProvider(AwsSettings(), "prod").classify(failed)
    assert found.next_move is NextMove.NEXT_REGION
    assert found.__cause__ is failed
    assert str(found) == "VcpuLimitExceeded: no"


def test_messages_are_short_and_end_with_what_to_do() -> None:
    long = "You are not authorized. Encoded authorization failure message: " + "x" * 5000
    text = str(errors.from_boto(client_error("UnauthorizedOperation", long)))
    assert "xxx" not in text
    assert text.endswith("docs/aws-iam-policy.json is the least that is needed")
    assert len(str(errors.from_boto(client_error("Odd", "y" * 5000)))) < 500


@pytest.mark.parametrize(
    ("error", "kind", "remedy"),
    [
        (boto.NoCredentialsError(), AuthenticationError, "AWS_PROFILE"),
        (
            boto.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
            AuthenticationError,
            "AWS_SECRET_ACCESS_KEY",
        ),
        (boto.UnauthorizedSSOTokenError(), AuthenticationError, "aws sso login"),
        (boto.SSOTokenLoadError(error_msg="none"), AuthenticationError, "aws sso login"),
        (
            boto.TokenRetrievalError(provider="sso", error_msg="expired"),
            AuthenticationError,
            "aws sso login",
        ),
        (boto.NoRegionError(), ConfigurationError, "AWS_REGION"),
        (boto.ProfileNotFound(profile="nobody"), ConfigurationError, "nobody"),
        (boto.InvalidRegionError(region_name="a b"), ConfigurationError, "AWS_REGION"),
        (
            boto.EndpointConnectionError(endpoint_url="https://ec2.eu-cental-1.amazonaws.com/"),
            ConfigurationError,
            "eu-central-1",
        ),
        (
            boto.EndpointConnectionError(endpoint_url="https://ec2.us-east-1.amazonaws.com/"),
            ProviderUnavailable,
            "us-east-1",
        ),
        (
            boto.EndpointConnectionError(endpoint_url="http://127.0.0.1:9/"),
            ProviderUnavailable,
            "127.0.0.1",
        ),
        (boto.ReadTimeoutError(endpoint_url="x"), ProviderUnavailable, ""),
        (boto.ConnectionClosedError(endpoint_url="x"), ProviderUnavailable, ""),
        (boto.SSLError(endpoint_url="x", error=OSError("bad")), ProviderUnavailable, "bad"),
        # A proxy's page in HTML, say.
        (ResponseParserError("invalid XML received"), ProviderUnavailable, "invalid XML"),
    ],
)
def test_what_boto_raises_by_itself(
    error: boto.BotoCoreError | ResponseParserError, kind: Kind, remedy: str
) -> None:
    found = errors.from_boto(error)
    assert type(found) is kind
    assert remedy in str(found)


def test_asking_keeps_the_cause() -> None:
    cause = client_error("RequestLimitExceeded")
    with pytest.raises(ProviderUnavailable) as caught, errors.asking():
        raise cause
    assert caught.value.__cause__ is cause
