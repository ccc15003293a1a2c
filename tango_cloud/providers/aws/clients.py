"""The API clients, built once, when first needed: clients may be shared by threads, sessions may
not."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from tango_cloud.core.errors import ConfigurationError, Fault
from tango_cloud.providers.aws import regions
from tango_cloud.providers.aws.errors import asking

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_service_quotas import ServiceQuotasClient
    from mypy_boto3_sts import STSClient

_SHADOWING = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is made, and how many seconds each may take."""

    attempts: int
    connect_seconds: float
    read_seconds: float


PATIENT = Patience(5, 5, 30)
HASTY = Patience(2, 2, 4)
"""For who only wants to know whether it works."""


@contextmanager
def _building() -> Iterator[None]:
    try:
        with asking():
            yield
    except ValueError as error:  # so boto3 complains of AWS_ENDPOINT_URL
        raise ConfigurationError([Fault("aws", str(error), "a URL in AWS_ENDPOINT_URL")]) from error


class Clients:
    """Safe for many threads. Nothing is read or asked before the first use.

    Every member raises ConfigurationError or AuthenticationError when the AWS configuration does
    not say who and where we are.
    """

    def __init__(
        self, region: str | None, profile: str | None, patience: Patience = PATIENT
    ) -> None:
        self._setting = region
        self._profile = profile or None
        self._patience = patience
        self._lock = threading.RLock()
        self._session: boto3.session.Session | None = None
        self._ec2: EC2Client | None = None
        self._sts: STSClient | None = None
        self._quotas: ServiceQuotasClient | None = None

    def hasty(self) -> Clients:
        """Others of the same account and region, which give up soon."""
        return Clients(self._setting, self._profile, HASTY)

    @property
    def region(self) -> regions.Region:
        with self._lock, asking():
            return regions.choose(self._setting, self._opened())

    @property
    def ec2(self) -> EC2Client:
        with self._lock, _building():
            if self._ec2 is None:
                self._ec2 = self._opened().client("ec2", config=self._config())
            return self._ec2

    @property
    def sts(self) -> STSClient:
        with self._lock, _building():
            if self._sts is None:
                self._sts = self._opened().client("sts", config=self._config())
            return self._sts

    @property
    def quotas(self) -> ServiceQuotasClient:
        with self._lock, _building():
            if self._quotas is None:
                self._quotas = self._opened().client("service-quotas", config=self._config())
            return self._quotas

    def environment(self) -> Mapping[str, str]:
        """What makes Terraform's plugin go where these clients go."""
        variables = {"AWS_REGION": self.region.name}
        if self._profile:
            # A profile that is named beats keys in the environment with boto3, not in the plugin:
            # the two would work in two accounts. Empty counts as unset there.
            variables |= {"AWS_PROFILE": self._profile, **dict.fromkeys(_SHADOWING, "")}
        return variables

    def _opened(self) -> boto3.session.Session:
        if self._session is None:
            self._session = boto3.session.Session(profile_name=self._profile)
        return self._session

    def _config(self) -> Config:
        return Config(
            region_name=self.region.name,
            retries={"mode": "standard", "total_max_attempts": self._patience.attempts},
            connect_timeout=self._patience.connect_seconds,
            read_timeout=self._patience.read_seconds,
            max_pool_connections=32,
            user_agent_extra="tango-cloud",
        )
