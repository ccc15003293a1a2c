"""The API clients, each built when first needed. Google's library is loaded then, not before."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import google.auth
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials, Credentials

from tango_cloud.core.errors import ConfigurationError, Fault
from tango_cloud.providers.gcp import endpoint
from tango_cloud.providers.gcp.errors import PROJECT, asking, is_passing

if TYPE_CHECKING:
    from google.cloud import compute_v1

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_SHADOWING = (
    "GOOGLE_CREDENTIALS",
    "GOOGLE_CLOUD_KEYFILE_JSON",
    "GCLOUD_KEYFILE_JSON",
    "GOOGLE_OAUTH_ACCESS_TOKEN",
    "GOOGLE_IMPERSONATE_SERVICE_ACCOUNT",
)
"""What Terraform's plugin prefers to the credentials that we use. Empty counts as unset there."""

# It complains when the credentials name no project, also where the settings do.
logging.getLogger("google.auth._default").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds a request may take, and how many all attempts at it together."""

    request_seconds: float
    seconds: float
    first_pause: float = 0.5


PATIENT = Patience(30, 60)
HASTY = Patience(4, 6)
"""For who only wants to know whether it works."""


@dataclass(frozen=True, slots=True)
class Project:
    name: str
    source: str
    """In words, for people."""


class Clients:
    """Safe for many threads. Nothing is read or asked before the first use.

    Every member raises ConfigurationError or AuthenticationError when nothing says who we are and
    in which project.
    """

    def __init__(self, project: str | None, patience: Patience = PATIENT) -> None:
        self._setting = project
        self._patience = patience
        self._lock = threading.RLock()
        self._found: tuple[Credentials, str | None] | None = None
        self._made: dict[str, Any] = {}

    def hasty(self) -> Clients:
        """Others of the same project, which give up soon."""
        return Clients(self._setting, HASTY)

    @property
    def project(self) -> Project:
        variable = os.environ.get("GOOGLE_CLOUD_PROJECT")
        if self._setting:
            return Project(self._setting, "from gcp.project")
        if variable:
            return Project(variable, "from GOOGLE_CLOUD_PROJECT")
        _, own = self._credentials()
        if own:
            return Project(own, "the credentials' own")
        raise ConfigurationError([Fault("gcp.project", "no project is set", PROJECT)])

    @property
    def identity(self) -> str:
        """Who we are, in words."""
        credentials, _ = self._credentials()
        if isinstance(credentials, AnonymousCredentials):
            return f"none: {endpoint.VARIABLE} names an emulation"
        account = getattr(credentials, "service_account_email", None)
        account = account or getattr(credentials, "account", None)
        kind = type(credentials).__module__.removeprefix("google.").removesuffix(".credentials")
        return f"{account} ({kind})" if account else kind

    @property
    def options(self) -> Mapping[str, Any]:
        """For every call: how long it may take, and when it is made again."""
        again = Retry(
            predicate=is_passing,
            initial=self._patience.first_pause,
            maximum=8.0,
            multiplier=2.0,
            timeout=self._patience.seconds,
        )
        return {"retry": again, "timeout": self._patience.request_seconds}

    @property
    def instances(self) -> compute_v1.InstancesClient:
        return cast("compute_v1.InstancesClient", self._client("InstancesClient"))

    @property
    def disks(self) -> compute_v1.DisksClient:
        return cast("compute_v1.DisksClient", self._client("DisksClient"))

    @property
    def machine_types(self) -> compute_v1.MachineTypesClient:
        return cast("compute_v1.MachineTypesClient", self._client("MachineTypesClient"))

    @property
    def zones(self) -> compute_v1.ZonesClient:
        return cast("compute_v1.ZonesClient", self._client("ZonesClient"))

    @property
    def regions(self) -> compute_v1.RegionsClient:
        return cast("compute_v1.RegionsClient", self._client("RegionsClient"))

    @property
    def images(self) -> compute_v1.ImagesClient:
        return cast("compute_v1.ImagesClient", self._client("ImagesClient"))

    @property
    def zone_operations(self) -> compute_v1.ZoneOperationsClient:
        return cast("compute_v1.ZoneOperationsClient", self._client("ZoneOperationsClient"))

    @property
    def subnetworks(self) -> compute_v1.SubnetworksClient:
        return cast("compute_v1.SubnetworksClient", self._client("SubnetworksClient"))

    @property
    def firewalls(self) -> compute_v1.FirewallsClient:
        return cast("compute_v1.FirewallsClient", self._client("FirewallsClient"))

    @property
    def projects(self) -> compute_v1.ProjectsClient:
        return cast("compute_v1.ProjectsClient", self._client("ProjectsClient"))

    def environment(self) -> Mapping[str, str]:
        """What makes Terraform's plugin go where these clients go, and as who."""
        variables = {"GOOGLE_PROJECT": self.project.name, **dict.fromkeys(_SHADOWING, "")}
        emulation = endpoint.emulated()
        if emulation is not None:
            # It would else look for credentials, and send them.
            variables |= {endpoint.VARIABLE: emulation, "GOOGLE_OAUTH_ACCESS_TOKEN": "emulated"}
        return variables

    def _credentials(self) -> tuple[Credentials, str | None]:
        """And the project that they belong to, if they say so."""
        with self._lock:
            if self._found is None:
                if endpoint.emulated() is not None:
                    self._found = AnonymousCredentials(), None
                else:
                    with asking():
                        self._found = google.auth.default(scopes=_SCOPES)
            return self._found

    def _client(self, name: str) -> Any:
        with self._lock:
            if name not in self._made:
                from google.cloud import compute_v1

                emulation = endpoint.emulated()
                place = {"api_endpoint": endpoint.origin(emulation)} if emulation else {}
                with asking():
                    self._made[name] = getattr(compute_v1, name)(
                        credentials=self._credentials()[0], client_options=place
                    )
            return self._made[name]
