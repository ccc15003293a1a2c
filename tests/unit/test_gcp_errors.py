"""What Google, its client and Terraform's plugin say, and what the caller does next."""

from __future__ import annotations

import pytest
import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud import compute_v1

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
from tango_cloud.core.sections import GcpSettings
from tango_cloud.providers.gcp import GcpProvider, errors

Kind = type[TangoCloudError]

REASONS: list[tuple[int, str, Kind]] = [
    (403, "quotaExceeded", QuotaError),
    (403, "limitExceeded", QuotaError),
    (403, "rateLimitExceeded", ProviderUnavailable),
    (403, "userRateLimitExceeded", ProviderUnavailable),
    (429, "rateLimitExceeded", ProviderUnavailable),
    (503, "backendError", ProviderUnavailable),
    (500, "internalError", ProviderUnavailable),
    (409, "operationInProgress", ProviderUnavailable),
    (400, "resourceNotReady", ProviderUnavailable),
    (400, "resourceInUseByAnotherResource", ProviderUnavailable),
    (409, "alreadyExists", ProviderUnavailable),
    (403, "forbidden", AuthenticationError),
    (403, "insufficientPermissions", AuthenticationError),
    (403, "accessNotConfigured", AuthenticationError),
    (401, "authError", AuthenticationError),
    (401, "required", AuthenticationError),
    (400, "required", ConfigurationError),
    (400, "invalid", ConfigurationError),
    (400, "badRequest", ConfigurationError),
    (404, "notFound", ConfigurationError),
    (412, "conditionNotMet", ConfigurationError),
    (418, "aReasonOfTomorrow", ProvisioningError),
    (503, "aReasonOfTomorrow", ProviderUnavailable),
    (403, "aReasonOfTomorrow", AuthenticationError),
    (501, "notImplemented", ProvisioningError),
]
CODES: list[tuple[int, str, Kind]] = [
    (503, "ZONE_RESOURCE_POOL_EXHAUSTED", CapacityError),
    (503, "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", CapacityError),
    (400, "UNSUPPORTED_OPERATION", CapacityError),
    (403, "QUOTA_EXCEEDED", QuotaError),
    (400, "IP_SPACE_EXHAUSTED", QuotaError),
    (403, "RATE_LIMIT_EXCEEDED", ProviderUnavailable),
    (403, "CONCURRENT_OPERATIONS_QUOTA_EXCEEDED", ProviderUnavailable),
    (500, "INTERNAL_ERROR", ProviderUnavailable),
    (503, "SERVICE_UNAVAILABLE", ProviderUnavailable),
    (400, "RESOURCE_NOT_READY", ProviderUnavailable),
    (404, "RESOURCE_NOT_FOUND", ConfigurationError),
    (400, "INVALID_FIELD_VALUE", ConfigurationError),
    (412, "CONDITION_NOT_MET", ConfigurationError),
    (403, "PERMISSIONS_ERROR", AuthenticationError),
    (400, "A_CODE_OF_TOMORROW", ProvisioningError),
]
STOCK_OUT = (
    "The zone 'projects/p/zones/us-central1-a' does not have enough resources available to "
    "fulfill the request.  '(resource type:compute)'."
)
QUOTA = "Quota 'CPUS' exceeded.  Limit: 24.0 in region us-central1."


def http_error(
    status: int, reason: str, message: str = "no", newer: str = ""
) -> api.GoogleAPICallError:
    info = {"reason": newer, "domain": "googleapis.com", "metadata": {}} if newer else None
    error: api.GoogleAPICallError = api.from_http_status(
        status,
        f"POST https://compute.googleapis.com/compute/v1/projects/p: {message}",
        errors=[{"message": message, "domain": "global", "reason": reason}],
        error_info=info,
    )
    return error


def operation(status: int, code: str, message: str = "no") -> compute_v1.Operation:
    return compute_v1.Operation(
        {
            "status": "DONE",
            "http_error_status_code": status,
            "error": {"errors": [{"code": code, "message": message}]},
        }
    )


@pytest.mark.parametrize(("status", "reason", "kind"), REASONS)
def test_one_table_serves_the_client_and_terraform(status: int, reason: str, kind: Kind) -> None:
    said = f"Error creating instance: googleapi: Error {status}: the message, {reason}"
    for error in (
        errors.from_google(http_error(status, reason, "the message")),
        errors.from_terraform(said),
    ):
        assert type(error) is kind
        assert "the message" in str(error)
        assert "https://" not in str(error)


@pytest.mark.parametrize(("status", "code", "kind"), CODES)
def test_and_the_codes_of_operations(status: int, code: str, kind: Kind) -> None:
    if code != "A_CODE_OF_TOMORROW":
        said = f"Error waiting for instance to create: {code}: the message"
        assert type(errors.from_terraform(said)) is kind
    else:
        kind = ConfigurationError  # by its status: what was asked for will not do
    error = errors.from_operation(operation(status, code, "the message"))
    assert type(error) is kind
    assert f"{code}: the message" in str(error)


def test_the_newer_reason_goes_before_the_older_one() -> None:
    both = http_error(403, "forbidden", "wait", "CONCURRENT_OPERATIONS_QUOTA_EXCEEDED")
    assert isinstance(errors.from_google(both), ProviderUnavailable)
    disabled = errors.from_google(http_error(403, "forbidden", "off", "SERVICE_DISABLED"))
    assert isinstance(disabled, AuthenticationError)
    assert "gcloud services enable" in str(disabled)


def quoted(status: int, message: str, reason: str) -> str:
    return f"Error creating instance: googleapi: Error {status}: {message}, {reason}"


WAITING = "Error waiting for instance to create: "
# The plugin tells an operation's message, and not its code.
OPERATIONS: list[tuple[str, Kind]] = [
    (STOCK_OUT, CapacityError),
    ("A e2-small VM instance is currently unavailable in the us-central1-b zone.", CapacityError),
    (f"{QUOTA}\n\tmetric name = compute.googleapis.com/cpus\n\tlimit = 24\n", QuotaError),
    ("timeout while waiting for state to become 'DONE'", ProviderUnavailable),
    ("Something else altogether", ProvisioningError),
]
PER_MINUTE = "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of service"
ANSWERS: list[tuple[int, str, str, Kind]] = [
    (403, QUOTA, "quotaExceeded", QuotaError),
    (403, PER_MINUTE, "forbidden", ProviderUnavailable),
    (
        403,
        'wait.\nDetails:\n[{"reason": "RATE_LIMIT_EXCEEDED"}]\n',
        "forbidden",
        AuthenticationError,
    ),
    (
        403,
        "Required 'compute.instances.create' permission for 'p'",
        "forbidden",
        AuthenticationError,
    ),
    (400, "Machine type with name 'x' does not exist in zone 'z'.", "invalid", CapacityError),
    (
        400,
        "[pd-balanced] features are not compatible for creating instance.",
        "invalid",
        CapacityError,
    ),
    (
        412,
        "Constraint constraints/compute.x violated for project 1.",
        "conditionNotMet",
        ConfigurationError,
    ),
    (412, "Invalid fingerprint.", "conditionNotMet", ProviderUnavailable),
    (
        404,
        "The resource 'projects/p/global/images/i' was not found",
        "notFound",
        ConfigurationError,
    ),
]
OTHERS: list[tuple[str, Kind]] = [
    (
        f"googleapi: Error 403: {QUOTA}\nMore details:\nReason: quotaExceeded, Message: x",
        QuotaError,
    ),
    ("googleapi: got HTTP response code 502 with body: bad", ProviderUnavailable),
    ('Post "http://127.0.0.1:9/": dial tcp: connect: connection refused', ProviderUnavailable),
    ("could not find default credentials. See the documentation", AuthenticationError),
    ('oauth2: "invalid_grant" "reauth related error (invalid_rapt)"', AuthenticationError),
    ("project: required field is not set", ConfigurationError),
]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *((WAITING + message, kind) for message, kind in OPERATIONS),
        *((quoted(status, text, reason), kind) for status, text, reason, kind in ANSWERS),
        *OTHERS,
    ],
)
def test_what_terraform_says(text: str, kind: Kind) -> None:
    assert type(errors.from_terraform(text)) is kind


def test_a_failed_apply_is_classified_by_what_it_says_of_the_machine() -> None:
    said = f"Error creating instance: googleapi: Error 403: {QUOTA}, quotaExceeded"
    failed = TerraformError(["terraform", "apply"], 1, "", [said])
    found = GcpProvider(GcpSettings(), "prod").classify(failed)
    assert found.next_move is NextMove.NEXT_REGION
    assert found.__cause__ is failed
    assert str(found).startswith("quotaExceeded: Quota 'CPUS' exceeded.")
    full = TerraformError(["terraform", "apply"], 1, "", [f"Error waiting: {STOCK_OUT}"])
    assert GcpProvider(GcpSettings(), "prod").classify(full).next_move is NextMove.NEXT_OFFER


def test_messages_are_short_and_end_with_what_to_do() -> None:
    refused = errors.from_google(http_error(403, "forbidden", "Required 'x' permission"))
    assert str(refused).endswith("docs/gcp-iam-role.yaml is the least that is needed")
    assert len(str(errors.from_google(http_error(400, "odd", "y" * 5000)))) < 500


@pytest.mark.parametrize(
    ("error", "kind", "remedy"),
    [
        (auth.DefaultCredentialsError("none found"), AuthenticationError, "application-default"),
        (auth.RefreshError("invalid_grant"), AuthenticationError, "log in again"),
        (auth.RefreshError("503", retryable=True), ProviderUnavailable, ""),
        (auth.TransportError("no route"), ProviderUnavailable, "no route"),
        (auth.GoogleAuthError("odd"), AuthenticationError, "odd"),
        (requests.ConnectionError("refused"), ProviderUnavailable, "refused"),
        (requests.ReadTimeout("slow"), ProviderUnavailable, "slow"),
        (
            api.RetryError("60 s", http_error(503, "backendError", "away")),
            ProviderUnavailable,
            "away",
        ),
        (
            api.RetryError("60 s", http_error(403, "rateLimitExceeded", "slowly")),
            ProviderUnavailable,
            "slowly",
        ),
    ],
)
def test_what_the_client_raises_by_itself(error: Exception, kind: Kind, remedy: str) -> None:
    found = errors.from_google(error)
    assert type(found) is kind
    assert remedy in str(found)


def test_only_what_passes_is_asked_for_again() -> None:
    assert errors.is_passing(http_error(403, "rateLimitExceeded"))
    assert errors.is_passing(http_error(500, "internalError"))
    assert errors.is_passing(requests.ConnectionError("reset"))
    assert not errors.is_passing(http_error(403, "quotaExceeded", QUOTA))
    assert not errors.is_passing(http_error(404, "notFound"))
    assert not errors.is_passing(http_error(501, "notImplemented"))
    assert not errors.is_passing(ValueError("our own fault"))


def test_asking_keeps_the_cause() -> None:
    cause = http_error(403, "rateLimitExceeded")
    with pytest.raises(ProviderUnavailable) as caught, errors.asking():
        raise cause
    assert caught.value.__cause__ is cause
