"""Errors as Compute Engine answers them: at once, or as the end of an operation."""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Any

_STATUSES = {
    "authError": 401,
    "forbidden": 403,
    "accessNotConfigured": 403,
    "quotaExceeded": 403,
    "rateLimitExceeded": 403,
    "userRateLimitExceeded": 403,
    "notFound": 404,
    "alreadyExists": 409,
    "conditionNotMet": 412,
    "internalError": 500,
    "notImplemented": 501,
    "backendError": 503,
}
"""The HTTP status of a reason; 400 for all others."""
_USAGE = {"accessNotConfigured", "quotaExceeded", "rateLimitExceeded", "userRateLimitExceeded"}
_OPERATION_STATUSES = {
    "ZONE_RESOURCE_POOL_EXHAUSTED": 503,
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS": 503,
    "UNSUPPORTED_OPERATION": 400,
    "QUOTA_EXCEEDED": 403,
    "RATE_LIMIT_EXCEEDED": 403,
    "PERMISSIONS_ERROR": 403,
    "RESOURCE_NOT_FOUND": 404,
    "RESOURCE_ALREADY_EXISTS": 409,
    "INTERNAL_ERROR": 500,
}
"""The HTTP status that an operation tells of its error; 400 for all others."""


class Error(Exception):
    """An answer that is an error. `reason` is Google's, the message is for a person."""

    def __init__(self, reason: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status or _STATUSES.get(reason, 400)

    def body(self) -> dict[str, Any]:
        domain = "usageLimits" if self.reason in _USAGE else "global"
        one = {"message": str(self), "domain": domain, "reason": self.reason}
        return {"error": {"code": self.status, "message": str(self), "errors": [one]}}


class OperationError(Exception):
    """An operation ends with it. `code` is Google's."""

    def __init__(self, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self._details = details

    def fields(self) -> dict[str, Any]:
        """What an operation says of it."""
        status = _OPERATION_STATUSES.get(self.code, 400)
        error: dict[str, Any] = {"code": self.code, "message": str(self)}
        if self._details:
            error["errorDetails"] = [self._details]
        return {
            "error": {"errors": [error]},
            "httpErrorStatusCode": status,
            "httpErrorMessage": http.HTTPStatus(status).phrase.upper(),
        }


def exhausted(project: str, zone: str, code: str, message: str = "") -> OperationError:
    """No capacity."""
    return OperationError(
        code,
        message
        or f"The zone 'projects/{project}/zones/{zone}' does not have enough resources available "
        "to fulfill the request.  Try a different zone, or try again later.",
    )


def over_quota(region: str, message: str = "") -> OperationError:
    """A quota of a region, found out when the operation has begun."""
    limit = {
        "metricName": "compute.googleapis.com/cpus",
        "limitName": "CPUS-per-project-region",
        "dimensions": {"region": region},
        "limit": 24,
    }
    text = message or f"Quota 'CPUS' exceeded.  Limit: 24.0 in region {region}."
    return OperationError("QUOTA_EXCEEDED", text, {"quotaInfo": limit})
