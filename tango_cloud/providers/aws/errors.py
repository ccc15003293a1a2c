"""What EC2 says went wrong, as the class that names the caller's next move.

One table of error codes serves boto3's errors and Terraform's diagnostics, which quote the same
codes: `api error InsufficientInstanceCapacity: ...`.
Source: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError
from botocore.parsers import ResponseParserError

from tango_cloud.core.errors import (
    AuthenticationError,
    CapacityError,
    ConfigurationError,
    Fault,
    ProviderUnavailable,
    ProvisioningError,
    QuotaError,
    TangoCloudError,
)
from tango_cloud.providers.aws import regions

CREDENTIALS = (
    "give credentials in one of the usual AWS ways: aws.profile, AWS_PROFILE, "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, `aws sso login`, or a role"
)
POLICY = "allow it to this identity: docs/aws-iam-policy.json is the least that is needed"
ENVELOPE = "what the envelope made: apply it anew"
_LONGEST = 400


class TerminationProtected(TangoCloudError):
    """A person has forbidden to terminate the instance. `instance_ids` names them."""

    def __init__(self, instance_ids: Sequence[str]) -> None:
        self.instance_ids = tuple(instance_ids)
        super().__init__(
            f"{', '.join(self.instance_ids)}: protected from termination; to allow it, set the "
            "instance attribute disableApiTermination to false"
        )


_BY_CODE: Mapping[str, type[TangoCloudError]] = {
    # The zone has none now: the next offer may.
    "Unsupported": CapacityError,
    "SpotMaxPriceTooLow": CapacityError,
    "UnfulfillableCapacity": CapacityError,
    "ReservationCapacityExceeded": CapacityError,
    "SpotInstanceTermination": CapacityError,
    "SpotInstanceShutdown": CapacityError,
    # The account may not have more.
    "MaxSpotInstanceCountExceeded": QuotaError,
    "MaxSpotFleetRequestCountExceeded": QuotaError,
    "MaxIOPSLimitExceeded": QuotaError,
    # The same request may work a moment later.
    "RequestLimitExceeded": ProviderUnavailable,
    "SlowDown": ProviderUnavailable,
    "Unavailable": ProviderUnavailable,
    "ServiceUnavailable": ProviderUnavailable,
    "InternalError": ProviderUnavailable,
    "InternalFailure": ProviderUnavailable,
    "RequestTimeout": ProviderUnavailable,
    "ConcurrentModification": ProviderUnavailable,
    "ConcurrentTagAccess": ProviderUnavailable,
    "DependencyViolation": ProviderUnavailable,
    "IdempotentParameterMismatch": ProviderUnavailable,
    "IncorrectState": ProviderUnavailable,
    "IncorrectInstanceState": ProviderUnavailable,
    # What was just made is not known everywhere at once.
    "InvalidInstanceID.NotFound": ProviderUnavailable,
    "InvalidNetworkInterfaceID.NotFound": ProviderUnavailable,
    "InvalidSnapshot.InUse": ProviderUnavailable,
    "InvalidVolume.NotFound": ProviderUnavailable,
    # Who we are, and what we may.
    "UnauthorizedOperation": AuthenticationError,
    "AccessDenied": AuthenticationError,
    "AccessDeniedException": AuthenticationError,
    "UnauthorizedException": AuthenticationError,
    "ForbiddenException": AuthenticationError,
    "AuthFailure": AuthenticationError,
    "Blocked": AuthenticationError,
    "ExpiredToken": AuthenticationError,
    "ExpiredTokenException": AuthenticationError,
    "RequestExpired": AuthenticationError,
    "InvalidClientTokenId": AuthenticationError,
    "UnrecognizedClientException": AuthenticationError,
    "InvalidAccessKeyId": AuthenticationError,
    "SignatureDoesNotMatch": AuthenticationError,
    "IncompleteSignature": AuthenticationError,
    "MissingAuthenticationToken": AuthenticationError,
    "InvalidToken": AuthenticationError,
    "OptInRequired": AuthenticationError,
    "PendingVerification": AuthenticationError,
    # A person has to change the settings, the image or the envelope.
    "InvalidBlockDeviceMapping": ConfigurationError,
    "InvalidGroup.NotFound": ConfigurationError,
    "InvalidSecurityGroupID.NotFound": ConfigurationError,
    "InvalidSubnetID.NotFound": ConfigurationError,
    "InvalidSubnet": ConfigurationError,
    "InvalidVpcID.NotFound": ConfigurationError,
    "InvalidInstanceType": ConfigurationError,
    "InvalidKey.Format": ConfigurationError,
    "InvalidSnapshot.NotFound": ConfigurationError,
    "InvalidUserData.Malformed": ConfigurationError,
    "MissingParameter": ConfigurationError,
    "OperationNotPermitted": ConfigurationError,
    "TagPolicyViolation": ConfigurationError,
    "UnsupportedOperation": ConfigurationError,
}
_BY_PATTERN: Sequence[tuple[re.Pattern[str], type[TangoCloudError]]] = (
    (re.compile(r"Insufficient"), CapacityError),
    (re.compile(r"\w+LimitExceeded$"), QuotaError),
    (re.compile(r"(Request)?Throttl|EC2ThrottledException|TooManyRequests"), ProviderUnavailable),
    (re.compile(r"InvalidAMIID|InvalidParameter|InvalidLaunchTemplate"), ConfigurationError),
)
"""For codes that are not in the table; matched at their start."""
_IN_STATE_REASON: Mapping[str, type[TangoCloudError]] = {
    # Of an instance that ended at once; nearly always a KMS key that may not be used.
    "Client.InternalError": ConfigurationError,
}
_REMEDIES: Mapping[str, str] = {
    "UnauthorizedOperation": POLICY,
    "AccessDenied": POLICY,
    "AccessDeniedException": POLICY,
    "AuthFailure": "check the credentials, this host's clock, and that the region is enabled",
    "SignatureDoesNotMatch": "check the secret key and this host's clock",
    "ExpiredToken": "log in again",
    "ExpiredTokenException": "log in again",
    "RequestExpired": "log in again, or set this host's clock",
    "OptInRequired": "enable the region or the image's subscription for this account",
    "PendingVerification": "wait for AWS to verify the account",
    "InvalidGroup.NotFound": ENVELOPE,
    "InvalidSecurityGroupID.NotFound": ENVELOPE,
    "InvalidSubnetID.NotFound": ENVELOPE,
    "InvalidVpcID.NotFound": ENVELOPE,
    "InvalidLaunchTemplateId.NotFound": ENVELOPE,
    "Client.InternalError": "a KMS key that this identity may use for disks",
}
_BY_EXCEPTION: Mapping[str, tuple[type[TangoCloudError], str]] = {
    "NoCredentialsError": (AuthenticationError, CREDENTIALS),
    "PartialCredentialsError": (AuthenticationError, CREDENTIALS),
    "CredentialRetrievalError": (AuthenticationError, CREDENTIALS),
    "NoAuthTokenError": (AuthenticationError, CREDENTIALS),
    "SSOError": (AuthenticationError, "log in again: aws sso login"),
    "TokenRetrievalError": (AuthenticationError, "log in again: aws sso login"),
    "LoginError": (AuthenticationError, "log in again: aws login"),
    "NoRegionError": (ConfigurationError, regions.EXPECTED),
    "InvalidRegionError": (ConfigurationError, regions.EXPECTED),
    "ProfileNotFound": (ConfigurationError, "a profile of the AWS configuration file"),
    "ConfigParseError": (ConfigurationError, "a readable AWS configuration file"),
    "ConfigNotFound": (ConfigurationError, "a readable AWS configuration file"),
    "InvalidConfigError": (ConfigurationError, "a correct AWS configuration file"),
    "UnknownCredentialError": (ConfigurationError, "a correct AWS configuration file"),
    "ParamValidationError": (ConfigurationError, ""),
}
"""What boto3 raises before a service has answered, by class or base class: by name, because the
newer ones are not in every version. Any other means that nothing answered."""
_OF_TERRAFORM: Sequence[tuple[re.Pattern[str], type[TangoCloudError], str]] = (
    (
        re.compile(
            r"No valid credential sources|failed to refresh cached credentials|no EC2 IMDS role"
            r"|failed to retrieve credentials|get credentials|SSO session has expired"
        ),
        AuthenticationError,
        CREDENTIALS,
    ),
    (re.compile(r"[Ii]nvalid AWS Region|Missing region"), ConfigurationError, regions.EXPECTED),
    (re.compile(r"failed to get shared config profile"), ConfigurationError, "an existing profile"),
    (
        re.compile(
            r"request send failed|connection re(fused|set)|no such host|i/o timeout|StatusCode: 5"
            r"|couldn't find resource|exceeded maximum number of attempts|timeout while waiting"
        ),
        ProviderUnavailable,
        "",
    ),
)
"""What Terraform says where it quotes no code."""

_QUOTED = re.compile(r"api error ([A-Z][\w.]*): ?(.*)", re.DOTALL)
_STATE_REASON = re.compile(r"\b((?:Client|Server)\.([A-Z][\w.]*\w))(?:: ?(.*))?", re.DOTALL)
_ENCODED = re.compile(r"\s*Encoded authorization failure message: \S+")


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def message_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", ""))


def says(error: TangoCloudError, codes: Container[str]) -> bool:
    """Whether it is what EC2 answered with one of these codes."""
    said = error.__cause__
    return isinstance(said, ClientError) and code_of(said) in codes


@contextmanager
def asking() -> Iterator[None]:
    """Raises what boto3 raises as ours. Every call to AWS is made in this."""
    try:
        yield
    except (ClientError, BotoCoreError, ResponseParserError) as error:
        raise from_boto(error) from error


def from_boto(error: ClientError | BotoCoreError | ResponseParserError) -> TangoCloudError:
    if isinstance(error, ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return of_code(code_of(error), message_of(error)) or (
            ProviderUnavailable(_text(code_of(error), message_of(error)))
            if status >= 500 or status == 429
            else ProvisioningError(_text(code_of(error), message_of(error)))
        )
    for kind in type(error).__mro__:
        if kind.__name__ in _BY_EXCEPTION:
            ours, remedy = _BY_EXCEPTION[kind.__name__]
            return _made(ours, str(error), remedy)
    fault = regions.fault(str(error)) if isinstance(error, EndpointConnectionError) else None
    if fault is not None:
        return ConfigurationError([fault])
    return ProviderUnavailable(f"AWS did not answer: {error}")


def from_terraform(text: str) -> TangoCloudError:
    """What the diagnostics of a failed apply amount to."""
    quoted = _QUOTED.search(text)
    if quoted:
        code, message = quoted.group(1).rstrip("."), quoted.group(2)
        known = of_code(code, message)
        if known is not None:
            return known
        kind = ProviderUnavailable if "StatusCode: 5" in text else ProvisioningError
        return kind(_text(code, message))
    # An instance that ended at once: "unexpected state 'terminated' ...: Client.Code: message".
    ended = _STATE_REASON.search(text)
    if ended:
        whole, code, message = ended.group(1), ended.group(2), ended.group(3) or ""
        if whole in _IN_STATE_REASON:
            remedy = _REMEDIES.get(whole, "")
            return _made(_IN_STATE_REASON[whole], _text(whole, message), remedy)
        return of_code(code, message) or ProvisioningError(_text(whole, message))
    for pattern, ours, remedy in _OF_TERRAFORM:
        if pattern.search(text):
            return _made(ours, _short(text), remedy)
    return ProvisioningError(text)


def of_code(code: str, message: str) -> TangoCloudError | None:
    """None for a code that is not known."""
    kind = _BY_CODE.get(code) or next(
        (ours for pattern, ours in _BY_PATTERN if pattern.match(code)), None
    )
    return None if kind is None else _made(kind, _text(code, message), _REMEDIES.get(code, ""))


def _made(kind: type[TangoCloudError], text: str, remedy: str) -> TangoCloudError:
    if issubclass(kind, ConfigurationError):
        return kind([Fault("aws", text, remedy)])
    return kind(f"{text}; {remedy}" if remedy else text)


def _text(code: str, message: str) -> str:
    return _short(f"{code}: {message}" if message else code)


def _short(text: str) -> str:
    plain = " ".join(_ENCODED.sub("", text).split())
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}…"
