"""Backends: stores of states that several hosts share. Without one, states are files of this host.

A backend belongs to one deployment. Each stack is a Terraform workspace in it, so one initialised
working directory still serves any number of states.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from tango_cloud.core import tags
from tango_cloud.core.errors import ConfigurationError, Fault
from tango_cloud.core.settings import Settings
from tango_cloud.terraform.binary import Binary

FILE = "backend.tf.json"
"""The name under which a workspace folder has its backend block, beside the module's files."""
_GROUPS = {"wave": "waves"}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_S3_MINIMUM = (1, 10, 0)
"""Of Terraform and of OpenTofu alike: the first that lock with an object beside the state."""


class Backend(Protocol):
    """A store of states for one deployment. Prints as the place where an operator finds it."""

    @property
    def name(self) -> str:
        """What Terraform calls this kind of store."""
        ...

    def arguments(self, kind: str) -> Mapping[str, object]:
        """The backend block for the stacks of one kind of module: nothing secret is in it."""
        ...

    def check(self, binary: Binary) -> None:
        """Raises ConfigurationError when this Terraform cannot lock states there."""
        ...


@dataclass(frozen=True, slots=True)
class S3:
    """A bucket. A state is `<prefix>/<deployment>/<waves|envelope>/<stack>/tango-cloud.tfstate`,
    its lock `tango-cloud.tfstate.tflock` beside it.

    Credentials come from the usual chain, and so does the region when it is None. `compatible`: not
    Amazon's own endpoint.
    """

    bucket: str
    prefix: str
    deployment: str
    region: str | None = None
    kms_key: str | None = None
    compatible: bool = False

    @property
    def name(self) -> str:
        return "s3"

    def arguments(self, kind: str) -> Mapping[str, object]:
        arguments: dict[str, object] = {
            "bucket": self.bucket,
            # Under this name `init` also looks for a state outside the prefix: one of ours only.
            "key": "tango-cloud.tfstate",
            "workspace_key_prefix": f"{self._folder}/{_GROUPS.get(kind, kind)}",
            "use_lockfile": True,
            "encrypt": True,
            # Each of the two would be a call to another service in every command.
            "skip_credentials_validation": True,
            "skip_requesting_account_id": True,
        }
        if self.region is not None:
            arguments["region"] = self.region
        if self.kms_key is not None:
            arguments["kms_key_id"] = self.kms_key
        if self.compatible:
            # A bucket is rarely a host name there, and regions have names of their own.
            arguments |= {"use_path_style": True, "skip_region_validation": True}
        return arguments

    def check(self, binary: Binary) -> None:
        if binary.version < _S3_MINIMUM:
            version, minimum = (".".join(map(str, v)) for v in (binary.version, _S3_MINIMUM))
            raise ConfigurationError(
                [
                    Fault(
                        "terraform.remote_state",
                        f"{binary.product} {version} cannot lock a state in S3",
                        f"terraform or tofu {minimum} or newer (terraform.binary)",
                    )
                ]
            )

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self._folder}/"

    @property
    def _folder(self) -> str:
        return f"{self.prefix}/{self.deployment}" if self.prefix else self.deployment


def backend_from_settings(settings: Settings, environ: Mapping[str, str]) -> Backend | None:
    """The backend that the settings ask for; None: states are local files.

    `environ` tells whether S3 is another endpoint's than Amazon's.
    """
    chosen = settings.terraform
    if chosen.remote_state is None:
        return None
    place = urlsplit(chosen.remote_state)
    return S3(
        bucket=place.netloc,
        prefix=place.path.strip("/"),
        deployment=settings.prefix,
        region=chosen.remote_state_region,
        kms_key=chosen.remote_state_kms_key,
        compatible=any(environ.get(name) for name in _ENDPOINTS),
    )


def backend_block(backend: Backend, kind: str) -> str:
    """The content of FILE, in Terraform's JSON syntax."""
    block = {"terraform": {"backend": {backend.name: backend.arguments(kind)}}}
    return json.dumps(block, indent=1, sort_keys=True)


def workspace_name(stack: str) -> str:
    """The Terraform workspace of a stack. Never `default`, whose state lies outside the prefix."""
    name = tags.encode(stack)
    return name if name != "default" else "_default"
