"""The boundary to a cloud: one Terraform folder and one class that satisfies `Provider`.

The Terraform folder `terraform/<name>/{envelope,wave}` has the same variables and outputs for every
provider. Orchestration creates only through it; this class answers questions and removes directly.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from tango_cloud.core.errors import TangoCloudError, TerraformError
from tango_cloud.core.model import Instance, MachineRequest, Offer, Rate, Shape


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What a machine must know before it is first reached.

    The host key (OpenSSH private key format) only proves the first connection and is replaced then,
    because user data can be read from the machine. Where machines make their own, its public half
    is merely a word that no other machine has.
    """

    host_private_key: str = field(repr=False)
    host_public_key: str
    authorized_keys: tuple[str, ...]
    expires: dt.datetime


@dataclass(frozen=True, slots=True)
class Check:
    """One finding of `doctor`. `remedy` says what to do about a fault; empty when there is none."""

    subject: str
    ok: bool
    finding: str
    remedy: str = ""
    warning: bool = False


class Provider(Protocol):
    @property
    def name(self) -> str:
        """The folder below `terraform/`, and the value of the setting `provider`."""
        ...

    @property
    def machine_resource(self) -> str:
        """The resource of the wave module that there is one of for each machine, by uid:
        `aws_instance.machine`.
        """
        ...

    def instance_id(self, stored_id: str, /) -> str:
        """The instance id of a machine that Terraform's state calls `stored_id`; empty where that
        does not prove that there is an instance."""
        ...

    @property
    def poll_interval(self) -> float:
        """The shortest sensible time between two listings, in seconds."""
        ...

    @property
    def compress(self) -> bool:
        """Whether the way to the machines is slow enough that compressing streams pays."""
        ...

    @property
    def sudo(self) -> bool:
        """Whether the account that we log in with becomes root by `sudo -n`."""
        ...

    @property
    def own_host_keys(self) -> bool:
        """Whether machines make their first host key themselves and publish it, see `host_key`,
        instead of being told one in their user data."""
        ...

    @property
    def creation_rate(self) -> Rate | None:
        """How fast the cloud lets machines be asked for; None: as fast as we like."""
        ...

    @property
    def removal_rate(self) -> Rate | None:
        """How fast it lets `terminate` be asked to remove them; None: as fast as we like."""
        ...

    def images(self) -> Sequence[str]:
        """The image names that a job may ask for; the first is for those that ask for none.

        Raises ProviderUnavailable when the cloud cannot be asked.
        """
        ...

    def offers(self, shape: Shape) -> Sequence[Offer]:
        """Every way to get `shape`, best first. Never empty.

        Raises ConfigurationError when no instance type or image fits, ProviderUnavailable when the
        cloud cannot be asked.
        """
        ...

    def envelope_variables(self, deployment: str) -> Mapping[str, object]:
        """The variables for `terraform/<name>/envelope`."""
        ...

    def user_data(self, bootstrap: Bootstrap) -> str:
        """What a new machine is told at first boot, in this provider's own form. Secret."""
        ...

    def wave_machines(self, requests: Iterable[MachineRequest]) -> Mapping[str, object]:
        """The value of the variable `machines` of `terraform/<name>/wave`, keyed by uid.

        Holds nothing secret: user data travels in the variable `user_data`, which is sensitive.
        """
        ...

    def environment(self) -> Mapping[str, str]:
        """Environment variables that this provider's Terraform needs (endpoints, regions)."""
        ...

    def instances(self, deployment: str) -> Sequence[Instance]:
        """Every instance tagged with exactly this deployment, those just being removed included.

        Complete, or an error: raises ProviderUnavailable (or AuthenticationError) when the cloud
        cannot be asked, and never answers a part. Instances that are gone may be left out.
        """
        ...

    def host_key(self, instance_id: str) -> str:
        """The first host key that the machine has published through the cloud's own, authenticated
        ways: `"ssh-ed25519 <base64>"`; empty as long as it has not. Only with `own_host_keys`.

        Raises ProviderUnavailable or AuthenticationError when the cloud cannot be asked.
        """
        ...

    def terminate(self, instance_ids: Iterable[str]) -> None:
        """Ask the cloud, without Terraform, to remove these instances.

        Already absent is success. May return before they are gone: the inventory tells.
        Raises ProviderUnavailable when the cloud cannot be asked.
        """
        ...

    def warnings(self) -> Sequence[Check]:
        """What its user should know before every run. Asks nothing of the cloud."""
        ...

    def classify(self, error: TerraformError) -> TangoCloudError:
        """The error of a failed apply, as the class that names the caller's next move."""
        ...


@runtime_checkable
class Diagnosable(Protocol):
    """A provider that can examine its own prerequisites for `tango-cloud doctor`."""

    def diagnose(self) -> Sequence[Check]: ...


@dataclass(frozen=True, slots=True)
class Stray:
    """A part of a machine that is no more: a volume, a network interface, a folder. `created` is
    None where the cloud does not tell."""

    id: str
    kind: str
    created: dt.datetime | None


@runtime_checkable
class Strays(Protocol):
    """A provider whose machines have parts that may outlive them."""

    def strays(self, deployment: str) -> Sequence[Stray]:
        """Every part that is attached to nothing and tagged as this deployment's machines are: like
        one by hand, with a name of its own or with none, is not listed.

        Complete, or an error: raises ProviderUnavailable or AuthenticationError.
        """
        ...

    def remove_strays(self, ids: Iterable[str]) -> None:
        """Already absent is success. Raises ProviderUnavailable or AuthenticationError."""
        ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made of: its own name, the image that its machine began as, and the SHA-256
    of what was applied."""

    name: str
    base: str
    digest: str


@dataclass(frozen=True, slots=True)
class BakedImage:
    """`created` is aware, in UTC. `ready` is False while the image is being made, and for ever when
    that failed. `size_bytes` is None where the cloud does not tell. `failure` says in the cloud's
    words why it will never be ready; empty while it may, and where the cloud does not tell."""

    id: str
    recipe: Recipe
    created: dt.datetime
    ready: bool
    size_bytes: int | None
    failure: str = ""


@runtime_checkable
class Baker(Protocol):
    """A provider that can make images of its machines."""

    def bake(self, instance_id: str, deployment: str, recipe: Recipe) -> str:
        """Begin an image of the machine, which is stopped for it, or may be; its id. Tagged in the
        creating call. `baked` tells when it is ready.

        Raises ProviderUnavailable, AuthenticationError, or ConfigurationError for a name that the
        cloud cannot take.
        """
        ...

    def baked(self, deployment: str) -> Sequence[BakedImage]:
        """All images baked by this deployment, in the making and failed ones too, newest first.

        Complete, or an error: raises ProviderUnavailable or AuthenticationError.
        """
        ...

    def remove_images(self, ids: Iterable[str]) -> None:
        """With their snapshots. Already absent is success. Raises ProviderUnavailable or
        AuthenticationError."""
        ...
