"""The provider `gcp`: machines on Google Compute Engine."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from tango_cloud.core import tags
from tango_cloud.core.errors import TangoCloudError, TerraformError
from tango_cloud.core.model import Instance, MachineRequest, Offer, Rate, Shape
from tango_cloud.core.sections import GcpSettings
from tango_cloud.providers import cloud_init, network
from tango_cloud.providers.gcp import baked, errors, host_keys, places, strays
from tango_cloud.providers.gcp.catalogue import Catalogue
from tango_cloud.providers.gcp.clients import Clients
from tango_cloud.providers.gcp.diagnosis import Diagnosis
from tango_cloud.providers.gcp.images import Images
from tango_cloud.providers.gcp.inventory import ComputeInventory
from tango_cloud.providers.gcp.termination import terminate
from tango_cloud.providers.instance_types import Need
from tango_cloud.providers.protocol import BakedImage, Bootstrap, Check, Recipe, Stray

NAME = "gcp"
DEFAULT_CORES = 2
DEFAULT_MEMORY_MIB = 2048
USER_DATA_LIMIT = 256 * 1024
"""Of one value of an instance's metadata."""
_SHORTEST_RUN = 30
_LONGEST_RUN = 120 * 24 * 3600
"""Seconds: what Google takes for the longest that an instance may run."""
_GUEST_GRACE = dt.timedelta(minutes=15)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class GcpProvider:
    """Satisfies `Provider`, `Diagnosable`, `Strays` and `Baker`. Safe to use from many threads.

    `deployment` is whose machines `diagnose` asks about and whose baked images machines can be made
    of, `lifetime` the longest that a machine may live. Nothing is asked before the first question:
    then ConfigurationError or AuthenticationError say which credentials or project are missing.
    """

    def __init__(
        self,
        settings: GcpSettings,
        deployment: str,
        *,
        lifetime: dt.timedelta = dt.timedelta(days=1),
        clients: Clients | None = None,
        clock: Callable[[], dt.datetime] = _now,
    ) -> None:
        self._settings = settings
        self._deployment = deployment
        self._clock = clock
        self._clients = clients or Clients(settings.project)
        self._images = Images(self._clients, settings.image_projects, deployment)
        self._catalogue = Catalogue(
            self._clients,
            patterns=settings.machine_types,
            markets=settings.markets,
            zones=settings.zones,
        )
        self._inventory = ComputeInventory(
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
        return "google_compute_instance.machine"

    def instance_id(self, stored_id: str, /) -> str:
        return places.instance_id_in(stored_id)

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
        """The plugin keeps user data in clear in its state, where no key may be."""
        return True

    @property
    def creation_rate(self) -> Rate | None:
        return Rate(self._settings.insert_burst, self._settings.inserts_per_second)

    @property
    def removal_rate(self) -> Rate | None:
        return Rate(self._settings.delete_burst, self._settings.deletes_per_second)

    def host_key(self, instance_id: str) -> str:
        return host_keys.published(self._clients, instance_id)

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
        existing = {"network": settings.network, "subnetworks": dict(settings.subnetworks)}
        return {
            "deployment": tags.encode(deployment),
            "network_cidr": settings.network_cidr,
            "zones": list(settings.zones),
            "network": existing if settings.network else None,
            "ssh_from": list(network.ssh_from("gcp.ssh_from", settings.ssh_from)),
            "public_address": settings.public_address,
        }

    def user_data(self, bootstrap: Bootstrap) -> str:
        """The machine itself may end only later than Google deletes it: one that powers itself off
        is merely stopped, and what is stopped Google does not delete at its expiry any more."""
        later = replace(bootstrap, expires=bootstrap.expires + _GUEST_GRACE)
        return cloud_init.user_data(later, limit=USER_DATA_LIMIT, own_host_key=True)

    def wave_machines(self, requests: Iterable[MachineRequest]) -> Mapping[str, object]:
        """Raises ConfigurationError when an image is not there any more."""
        return {request.uid: self._machine(request) for request in requests}

    def _machine(self, request: MachineRequest) -> Mapping[str, object]:
        image = self._images.find(request.shape.image)
        left = int((request.expires - self._clock()).total_seconds())
        return {
            "image": image.path,
            "instance_type": request.offer.instance_type,
            "zone": request.offer.zone,
            "market": str(request.offer.market),
            # Said outright: reviewers see it, and Google refuses a disk smaller than the image.
            "disk_gib": max(request.shape.disk_gib or 0, image.disk_gib) or None,
            "tags": dict(request.tags),
            "expires": request.expires.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "run_seconds": min(max(left, _SHORTEST_RUN), _LONGEST_RUN),
        }

    def environment(self) -> Mapping[str, str]:
        return self._clients.environment()

    def instances(self, deployment: str) -> Sequence[Instance]:
        return self._inventory.instances(deployment)

    def terminate(self, instance_ids: Iterable[str]) -> None:
        """Returns once Google has agreed to all. Raises ProviderUnavailable or AuthenticationError
        when it cannot be asked, DeletionProtected when a person has forbidden it: what can go has
        gone all the same."""
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
        hasty = self._clients.hasty()
        return Diagnosis(
            hasty,
            self._settings,
            deployment=self._deployment,
            images=self._images,
            offers=lambda: self.offers(Shape("")),
        ).checks()
