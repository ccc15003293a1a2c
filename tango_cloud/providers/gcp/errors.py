"""What Google says went wrong, as the class that names the caller's next move.

One table serves the reasons of HTTP errors (`quotaExceeded`), the codes of failed operations
(`QUOTA_EXCEEDED`) and Terraform's diagnostics, which quote the first, and of the second only the
message. Source: https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-api-errors
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from google.api_core.exceptions import (
    GoogleAPICallError,
    GoogleAPIError,
    NotFound,
    RetryError,
)
from google.auth.exceptions import (
    DefaultCredentialsError,
    GoogleAuthError,
    RefreshError,
    TransportError,
)
from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
from requests.exceptions import RequestException

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

if TYPE_CHECKING:
    from google.cloud import compute_v1

CREDENTIALS = (
    "give Application Default Credentials in one of the usual ways: `gcloud auth "
    "application-default login`, GOOGLE_APPLICATION_CREDENTIALS, or this host's service account"
)
ROLE = "allow it to this identity: docs/gcp-iam-role.yaml is the least that is needed"
PROJECT = "gcp.project or GOOGLE_CLOUD_PROJECT"
_LOGIN = "log in again: gcloud auth application-default login"
_ENABLE = "enable it for the project: gcloud services enable compute.googleapis.com"
_LONGEST = 400
_FORBIDDEN = 403


class DeletionProtected(TangoCloudError):
    """A person has forbidden to delete the instance. `instance_ids` names them."""

    def __init__(self, instance_ids: Sequence[str]) -> None:
        self.instance_ids = tuple(instance_ids)
        super().__init__(
            f"{', '.join(self.instance_ids)}: protected against deletion; to allow it: gcloud "
            "compute instances update --no-deletion-protection"
        )


_BY_CODE: Mapping[str, type[TangoCloudError]] = {
    # The zone has none now: the next offer may.
    "ZONE_RESOURCE_POOL_EXHAUSTED": CapacityError,
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS": CapacityError,
    "RESOURCE_AVAILABILITY": CapacityError,
    "STOCKOUT": CapacityError,
    "UNSUPPORTED_OPERATION": CapacityError,
    # The project may not have more.
    "QUOTA_EXCEEDED": QuotaError,
    "LIMIT_EXCEEDED": QuotaError,
    # A subnetwork is full, and there is one in a region.
    "IP_SPACE_EXHAUSTED": QuotaError,
    "IP_SPACE_EXHAUSTED_WITH_DETAILS": QuotaError,
    # The same request may work a moment later.
    "RATE_LIMIT_EXCEEDED": ProviderUnavailable,
    "USER_RATE_LIMIT_EXCEEDED": ProviderUnavailable,
    "DAILY_LIMIT_EXCEEDED": ProviderUnavailable,
    "CONCURRENT_OPERATIONS_QUOTA_EXCEEDED": ProviderUnavailable,
    "RESOURCE_OPERATION_RATE_EXCEEDED": ProviderUnavailable,
    "BACKEND_ERROR": ProviderUnavailable,
    "INTERNAL_ERROR": ProviderUnavailable,
    "SERVICE_UNAVAILABLE": ProviderUnavailable,
    "UNAVAILABLE": ProviderUnavailable,
    "DEADLINE_EXCEEDED": ProviderUnavailable,
    "TIMEOUT": ProviderUnavailable,
    "ABORTED": ProviderUnavailable,
    "OPERATION_IN_PROGRESS": ProviderUnavailable,
    "RESOURCE_NOT_READY": ProviderUnavailable,
    "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE": ProviderUnavailable,
    # The answer to the first request was lost: the inventory shows what that made.
    "ALREADY_EXISTS": ProviderUnavailable,
    "RESOURCE_ALREADY_EXISTS": ProviderUnavailable,
    # Who we are, and what we may.
    "FORBIDDEN": AuthenticationError,
    "PERMISSION_DENIED": AuthenticationError,
    "IAM_PERMISSION_DENIED": AuthenticationError,
    "PERMISSIONS_ERROR": AuthenticationError,
    "INSUFFICIENT_PERMISSIONS": AuthenticationError,
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": AuthenticationError,
    "ACCESS_TOKEN_EXPIRED": AuthenticationError,
    "AUTH_ERROR": AuthenticationError,
    "UNAUTHENTICATED": AuthenticationError,
    "CREDENTIALS_MISSING": AuthenticationError,
    "ACCOUNT_STATE_INVALID": AuthenticationError,
    "ACCESS_NOT_CONFIGURED": AuthenticationError,
    "SERVICE_DISABLED": AuthenticationError,
    "BILLING_DISABLED": AuthenticationError,
    "BILLING_NOT_ENABLED": AuthenticationError,
    "CONSUMER_INVALID": AuthenticationError,
    # A person has to change the settings, the image, the envelope or the organization's policy.
    "INVALID": ConfigurationError,
    "INVALID_ARGUMENT": ConfigurationError,
    "INVALID_FIELD_VALUE": ConfigurationError,
    "INVALID_PARAMETER": ConfigurationError,
    "INVALID_USAGE": ConfigurationError,
    "BAD_REQUEST": ConfigurationError,
    "REQUIRED": ConfigurationError,
    "CONDITION_NOT_MET": ConfigurationError,
    "FAILED_PRECONDITION": ConfigurationError,
    "NOT_FOUND": ConfigurationError,
    "RESOURCE_NOT_FOUND": ConfigurationError,
    "RESOURCE_PROJECT_INVALID": ConfigurationError,
}
"""Reasons are spelt as codes are: `quotaExceeded` is QUOTA_EXCEEDED."""
_BY_MESSAGE: Sequence[tuple[re.Pattern[str], type[TangoCloudError], str]] = (
    (
        re.compile(
            r"does not have enough resources available|STOCKOUT|sufficient capacity"
            r"|is currently unavailable in the \S+ zone|ZONE_RESOURCE_POOL_EXHAUSTED"
        ),
        CapacityError,
        "",
    ),
    # Another type, or another zone, may do.
    (
        re.compile(
            r"[Mm]achine type with name \S+ does not exist in zone|/machineTypes/\S+ was not found"
            r"|are not compatible for creating instance"
        ),
        CapacityError,
        "",
    ),
    # Of requests, which comes back by itself.
    (re.compile(r"Quota exceeded for quota metric"), ProviderUnavailable, ""),
    (re.compile(r"Quota '[^']+' exceeded|IP space of \S+ is exhausted"), QuotaError, ""),
    (re.compile(r"[Ff]ingerprint"), ProviderUnavailable, ""),
)
"""What is told by the message whatever the code."""
_BY_STATUS: Mapping[int, type[TangoCloudError]] = {
    400: ConfigurationError,
    401: AuthenticationError,
    403: AuthenticationError,
    404: ConfigurationError,
    408: ProviderUnavailable,
    429: ProviderUnavailable,
    501: ProvisioningError,
}
"""For a code that is not known. 500 and above: the service is at fault."""
_REMEDIES: Mapping[str, str] = {
    "FORBIDDEN": ROLE,
    "PERMISSION_DENIED": ROLE,
    "IAM_PERMISSION_DENIED": ROLE,
    "PERMISSIONS_ERROR": ROLE,
    "INSUFFICIENT_PERMISSIONS": "give this host's service account the scope cloud-platform",
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": "give this host's service account the scope cloud-platform",
    "ACCESS_TOKEN_EXPIRED": _LOGIN,
    "AUTH_ERROR": _LOGIN,
    "UNAUTHENTICATED": _LOGIN,
    "CREDENTIALS_MISSING": CREDENTIALS,
    "ACCESS_NOT_CONFIGURED": _ENABLE,
    "SERVICE_DISABLED": _ENABLE,
    "BILLING_DISABLED": "link the project to a billing account",
    "BILLING_NOT_ENABLED": "link the project to a billing account",
    "CONSUMER_INVALID": f"a project that exists, in {PROJECT}",
    "RESOURCE_PROJECT_INVALID": f"a project that exists, in {PROJECT}",
}
_OF_TERRAFORM: Sequence[tuple[re.Pattern[str], type[TangoCloudError], str]] = (
    (
        re.compile(
            r"could not find default credentials|No credentials loaded|invalid_grant|invalid_rapt"
            r"|oauth2: |impersonate: |Invalid credentials"
        ),
        AuthenticationError,
        CREDENTIALS,
    ),
    (
        re.compile(r"project: required field is not set|Failed to retrieve project"),
        ConfigurationError,
        PROJECT,
    ),
    (
        re.compile(
            r"connection re(fused|set)|no such host|i/o timeout|unexpected EOF|deadline exceeded"
            r"|TLS handshake timeout|timeout while waiting|HTTP response code 5\d\d"
        ),
        ProviderUnavailable,
        "",
    ),
)
"""What Terraform says where it quotes neither a reason nor a code."""

_RAISED = (GoogleAPIError, GoogleAuthError, RequestException, ParseError)
"""What Google's client raises when something is wrong with the answer, or there is none."""
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_REQUEST = re.compile(r"^[A-Z]+ https?://\S+: ")
_QUOTED = re.compile(r"googleapi: Error (\d{3}): (.*)", re.DOTALL)
_REASON = re.compile(r"(?:, |Reason: |\"reason\": \")([A-Za-z][A-Za-z_]{3,})\b")
_CODE = re.compile(r"\b[A-Z]+(?:_[A-Z]+)+\b")
_DETAILS = re.compile(r"\s*(?:Details:\s*\[.*|More details:\s*Reason:.*)", re.DOTALL)


@contextmanager
def asking() -> Iterator[None]:
    """Raises what Google's client raises as ours. Every call to Google is made in this."""
    try:
        yield
    except _RAISED as error:
        raise from_google(error) from error


def is_passing(error: Exception) -> bool:
    """Whether the client itself is to make the request again."""
    return isinstance(error, _RAISED) and isinstance(from_google(error), ProviderUnavailable)


def from_google(error: Exception) -> TangoCloudError:
    if isinstance(error, RetryError) and error.cause is not None:
        return from_google(error.cause)
    if isinstance(error, GoogleAPICallError):
        return of_codes(codes_of(error), message_of(error), int(error.code or 0))
    if isinstance(error, DefaultCredentialsError):
        return AuthenticationError(f"{_short(str(error))}; {CREDENTIALS}")
    if isinstance(error, RefreshError) and not error.retryable:
        return AuthenticationError(f"{_short(str(error))}; {_LOGIN}")
    if isinstance(error, GoogleAuthError) and not isinstance(error, (RefreshError, TransportError)):
        return AuthenticationError(f"{_short(str(error))}; {CREDENTIALS}")
    return ProviderUnavailable(f"Google did not answer: {_short(str(error))}")


def from_operation(operation: compute_v1.Operation) -> TangoCloudError:
    """Why an operation that is done has failed."""
    for error in operation.error.errors:
        return of_codes([error.code], error.message, operation.http_error_status_code)
    return ProvisioningError(f"{operation.operation_type} failed, and Google does not say why")


def from_terraform(text: str) -> TangoCloudError:
    """What the diagnostics of a failed apply amount to."""
    quoted = _QUOTED.search(text)
    if quoted:
        status, message = int(quoted.group(1)), quoted.group(2)
        reasons = [reason for reason in _REASON.findall(message) if _spelt(reason) in _BY_CODE]
        return of_codes(reasons[::-1], _without(message, reasons), status)
    codes = [code for code in _CODE.findall(text) if code in _BY_CODE]
    known = _by_message(text) or (of_codes(codes, text, 0) if codes else None)
    if known is not None:
        return known
    for pattern, ours, remedy in _OF_TERRAFORM:
        if pattern.search(text):
            return _made(ours, _short(text), remedy)
    return ProvisioningError(text)


def of_codes(codes: Sequence[str], message: str, status: int) -> TangoCloudError:
    """`codes` are the reasons or codes that were given, the one to go by first."""
    told = _by_message(message, codes[0] if codes else "")
    if told is not None:
        return told
    for code in codes:
        kind = _BY_CODE.get(_spelt(code))
        if kind is not None:
            # What is missing is also `required`: credentials.
            refused = status in (401, _FORBIDDEN) and kind is ConfigurationError
            remedy = _REMEDIES.get(_spelt(code), CREDENTIALS if refused else "")
            return _made(AuthenticationError if refused else kind, _text(code, message), remedy)
    kind = _BY_STATUS.get(status, ProviderUnavailable if status >= 500 else ProvisioningError)
    return _made(kind, _text(codes[0] if codes else "", message), "")


def says_absent(error: TangoCloudError, path: str) -> bool:
    """That the resource (`disks/NAME`) is not there, and not its zone or project."""
    said = error.__cause__
    return isinstance(said, NotFound) and f"{path}'" in message_of(said)


def codes_of(error: GoogleAPICallError) -> Sequence[str]:
    """The detailed reason first, then those of the older form."""
    told = [error.reason] if error.reason else []
    return told + [str(e["reason"]) for e in error.errors if isinstance(e, dict) and "reason" in e]


def message_of(error: GoogleAPICallError) -> str:
    """Without the request that the client puts before it."""
    return _REQUEST.sub("", str(error.message))


def _by_message(message: str, code: str = "") -> TangoCloudError | None:
    for pattern, ours, remedy in _BY_MESSAGE:
        if pattern.search(message):
            return _made(ours, _text(code, message), remedy)
    return None


def _spelt(code: str) -> str:
    return _HUMP.sub("_", code).upper()


def _without(message: str, reasons: Sequence[str]) -> str:
    """The message alone, without the reason behind it."""
    plain = _DETAILS.sub("", message).strip()
    return plain.removesuffix(f", {reasons[-1]}") if reasons else plain


def _made(kind: type[TangoCloudError], text: str, remedy: str) -> TangoCloudError:
    if issubclass(kind, ConfigurationError):
        return kind([Fault("gcp", text, remedy)])
    return kind(f"{text}; {remedy}" if remedy else text)


def _text(code: str, message: str) -> str:
    return _short(f"{code}: {message}" if code and message else code or message)


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}…"
