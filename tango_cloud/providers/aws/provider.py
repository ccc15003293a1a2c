"""The provider `aws`: machines on Amazon EC2."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from tango_cloud.core import tags
from tango_cloud.core.errors import TangoCloudError, TerraformError
from tango_cloud.core.model import Instance, MachineRequest, Offer, Rate, Shape
from tango_cloud.core.sections import AwsSettings
from tango_cloud.providers import cloud_init, network
from tango_cloud.providers.aws import baked, errors, strays
from tango_cloud.providers.aws.catalogue import Catalogue
from tango_cloud.providers.aws.clients import Clients
from tango_cloud.providers.aws.diagnosis import Diagnosis
from tango_cloud.providers.aws.images import Images
from tango_cloud.providers.aws.inventory import Ec2Inventory
from tango_cloud.providers.aws.termination import terminate
from tango_cloud.providers.instance_types import Need
from tango_cloud.providers.protocol import BakedImage, Bootstrap, Check, Recipe, Stray

NAME = "aws"
DEFAULT_CORES = 2
DEFAULT_MEMORY_MIB = 2048
USER_DATA_LIMIT = 16 * 1024
"""Before it is encoded for the request."""
_NAME_LENGTH = 256
_NOT_IN_NAMES = re.compile(r"[^\w .:/=+@-]")


class AwsProvider:
    """Satisfies `Provider`, `Diagnosable`, `Strays` and `Baker`. Safe to use from many threads.

    `deployment` is whose permissions `diagnose` asks about and whose baked images machines can be
    made of, `lifetime` the longest that a machine may live. Nothing is asked before the first
    question: then ConfigurationError or AuthenticationError say what the AWS configuration lacks.
    """

    def __init__(
        self,
        settings: AwsSettings,
        deployment: str,
        *,
        lifetime: dt.timedelta = dt.timedelta(days=1),
        clients: Clients | None = None,
    ) -> None:
        self._settings = settings
        self._deployment = deployment
        self._clients = clients or Clients(settings.region, settings.profile)
        self._images = Images(self._clients, settings.image_owners, deployment)
        self._catalogue = Catalogue(
            self._clients,
            patterns=settings.instance_types,
            markets=settings.markets,
            zones=settings.zones,
            subnet_ids=settings.subnet_ids,
        )
        self._inventory = Ec2Inventory(
            self._clients,
            public=settings.public_address,
            reach=settings.reach,
            lifetime=lifetime,
        )

    @property
    def name(self) -> str:
        return NAME

    @property
    def machine_resource(self) -> str:
        return "aws_instance.machine"

    def instance_id(self, stored_id: str, /) -> str:
        return stored_id

    @property
    def poll_interval(self) -> float:
        return 1.0

    @property
    def compress(self) -> bool:
        return self._settings.public_address

    @property
    def sudo(self) -> bool:
        # Emulated machines whose addresses are translated belong to the user who logs in.
        return self._settings.reach is None

    @property
    def own_host_keys(self) -> bool:
        return False

    @property
    def creation_rate(self) -> Rate | None:
        return Rate(self._settings.launch_burst, self._settings.launches_per_second)

    @property
    def removal_rate(self) -> Rate | None:
        return Rate(self._settings.terminate_burst, self._settings.terminations_per_second)

    def host_key(self, instance_id: str) -> str:
        raise NotImplementedError(f"{instance_id} was told its host key")

    def images(self) -> Sequence[str]:
        return self._images.names()

    def offers(self, shape: Shape) -> Sequence[Offer]:
        return self._catalogue.offers(
            Need(
                cores=shape.cores or DEFAULT_CORES,
                memory_mib=shape.memory_mib or DEFAULT_MEMORY_MIB,
                architecture=self._images.find(shape.image).architecture,
            )
        )

    def envelope_variables(self, deployment: str) -> Mapping[str, object]:
        """Raises ConfigurationError when it cannot be told who may reach the machines."""
        settings = self._settings
        existing = {"vpc_id": settings.vpc_id, "subnet_ids": list(settings.subnet_ids)}
        return {
            "deployment": tags.encode(deployment),
            "network_cidr": settings.network_cidr,
            "zones": list(settings.zones),
            "network": existing if settings.vpc_id else None,
            "ssh_from": list(network.ssh_from("aws.ssh_from", settings.ssh_from)),
            "public_address": settings.public_address,
        }

    def user_data(self, bootstrap: Bootstrap) -> str:
        return cloud_init.user_data(bootstrap, limit=USER_DATA_LIMIT)

    def wave_machines(self, requests: Iterable[MachineRequest]) -> Mapping[str, object]:
        """Raises ConfigurationError when an image is not there any more."""
        return {request.uid: self._machine(request) for request in requests}

    def _machine(self, request: MachineRequest) -> Mapping[str, object]:
        image = self._images.find(request.shape.image)
        return {
            "image": image.image_id,
            "instance_type": request.offer.instance_type,
            "zone": request.offer.zone,
            "market": str(request.offer.market),
            # Said outright: reviewers see it, and EC2 refuses a disk that the image is too big for.
            "disk_gib": max(request.shape.disk_gib or 0, image.disk_gib) or None,
            "tags": {**request.tags, "Name": name_tag(request.key.instance_name)},
            "expires": request.expires.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def environment(self) -> Mapping[str, str]:
        return self._clients.environment()

    def instances(self, deployment: str) -> Sequence[Instance]:
        return self._inventory.instances(deployment)

    def terminate(self, instance_ids: Iterable[str]) -> None:
        """Returns once EC2 has agreed to all. Raises ProviderUnavailable or AuthenticationError
        when it cannot be asked, TerminationProtected when a person has forbidden it: what can go
        has gone all the same."""
        terminate(self._clients, instance_ids)

    def strays(self, deployment: str) -> Sequence[Stray]:
        return strays.find(self._clients, deployment)

    def remove_strays(self, ids: Iterable[str]) -> None:
        strays.remove(self._clients, ids)

    def bake(self, instance_id: str, deployment: str, recipe: Recipe) -> str:
        return baked.bake(self._clients, instance_id, deployment, recipe)

    def baked(self, deployment: str) -> Sequence[BakedImage]:
        found = baked.find(self._clients, deployment)
        self._images.forget()
        return found

    def remove_images(self, ids: Iterable[str]) -> None:
        try:
            baked.remove(self._clients, ids)
        finally:
            self._images.forget()

    def classify(self, error: TerraformError) -> TangoCloudError:
        classified = errors.from_terraform("; ".join(error.diagnostics) or str(error))
        classified.__cause__ = error
        return classified

    def warnings(self) -> Sequence[Check]:
        return ()

    def diagnose(self) -> Sequence[Check]:
        settings = self._settings
        return Diagnosis(
            self._clients.hasty(),
            deployment=self._deployment,
            images=self._images,
            offers=lambda: self.offers(Shape("")),
            spot="spot" in settings.markets,
            ssh_from=settings.ssh_from,
            way=self._way(),
        ).checks()

    def _way(self) -> str:
        """How machines are reached, in words."""
        if self._settings.public_address:
            return "machines have public addresses"
        if self._settings.vpc_id:
            return f"machines have private addresses in {self._settings.vpc_id}"
        return (
            "machines have private addresses in a network of their own, which this host reaches by "
            "peering or a VPN only: else set aws.vpc_id, or aws.public_address"
        )


def name_tag(text: str) -> str:
    """`text` as the value of the tag `Name`, which people read in the console: EC2's characters
    only (letters, digits, spaces and `_.:/=+-@`), and not more than it takes."""
    plain = unicodedata.normalize("NFC", text)
    return _NOT_IN_NAMES.sub("-", plain)[:_NAME_LENGTH]
