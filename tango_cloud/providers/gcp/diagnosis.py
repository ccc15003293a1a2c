"""What `tango-cloud doctor` finds out about a Google project. Nothing is made or changed by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tango_cloud.core import tags
from tango_cloud.core.errors import AuthenticationError, TangoCloudError
from tango_cloud.core.model import Offer
from tango_cloud.core.sections import GcpSettings
from tango_cloud.providers import network
from tango_cloud.providers.gcp import openings, places
from tango_cloud.providers.gcp.clients import Clients
from tango_cloud.providers.gcp.errors import CREDENTIALS, PROJECT, ROLE, asking
from tango_cloud.providers.gcp.images import Images
from tango_cloud.providers.gcp.machine_types import by_region
from tango_cloud.providers.protocol import Check

if TYPE_CHECKING:
    from google.cloud import compute_v1

_OF_AN_INSTANCE = ("compute.instances.get", "compute.instances.delete")
_OF_AN_IMAGE = ("compute.images.get", "compute.images.useReadOnly")
_OF_A_SUBNETWORK = ("compute.subnetworks.get", "compute.subnetworks.use")
_OUTSIDE = "compute.subnetworks.useExternalIp"
_NEVER_TOLD = ("compute.instances.create", "compute.disks.create")
"""Permissions of a project, which another API than Compute Engine's would tell."""

Answer = tuple[Sequence[str], Sequence[str]]
"""Permissions: those that are missing, and those of which nothing is known."""


class Diagnosis:
    """`clients` should give up soon. `offers` are those for the default shape."""

    def __init__(
        self,
        clients: Clients,
        settings: GcpSettings,
        *,
        deployment: str,
        images: Images,
        offers: Callable[[], Sequence[Offer]],
    ) -> None:
        self._clients = clients
        self._settings = settings
        self._deployment = deployment
        self._images = images
        self._offers = offers
        self._regions = list(by_region(settings.zones))

    def checks(self) -> Sequence[Check]:
        """All of them at the same time; those that need an answer only if there is one."""
        first = list(self._who_and_where())
        if not all(check.ok for check in first):
            return first
        project, last = self._project_check()
        if project is None:
            return [*first, last]
        rest = [
            lambda: self._quota_checks(project),
            self._image_check,
            self._offer_check,
            self._permission_check,
            self._reach_check,
        ]
        with ThreadPoolExecutor(len(rest)) as pool:
            found = [future.result() for future in [pool.submit(_all, c) for c in rest]]
        return [*first, last, *(check for part in found for check in part)]

    def _who_and_where(self) -> Iterator[Check]:
        try:
            yield Check("Google credentials", True, self._clients.identity)
        except TangoCloudError as error:
            remedy = CREDENTIALS if isinstance(error, AuthenticationError) else "see the error"
            yield Check("Google credentials", False, str(error), remedy)
            return
        try:
            project = self._clients.project
            yield Check("Google project", True, f"{project.name} ({project.source})")
        except TangoCloudError as error:
            yield Check("Google project", False, str(error), f"set {PROJECT}")

    def _project_check(self) -> tuple[compute_v1.Project | None, Check]:
        subject = "Compute Engine API"
        try:
            with asking():
                project = self._clients.projects.get(
                    request={"project": self._clients.project.name}, **self._clients.options
                )
        except TangoCloudError as error:
            return None, Check(subject, False, str(error), "see the error")
        return project, Check(subject, True, f"enabled, and answers for {project.name}")

    def _quota_checks(self, project: compute_v1.Project) -> Iterator[Check]:
        metrics = ["CPUS"]
        if "spot" in self._settings.markets:
            metrics.append("PREEMPTIBLE_CPUS")
        if self._settings.public_address:
            metrics.append("IN_USE_ADDRESSES")
        for region in self._regions:
            subject = f"quota of {region}"
            try:
                request = {"project": self._clients.project.name, "region": region}
                with asking():
                    found = self._clients.regions.get(request=request, **self._clients.options)
            except TangoCloudError as error:
                yield Check(subject, False, str(error), "see the error")
            else:
                yield _quota_check(subject, found.quotas, metrics)
        if any(quota.metric == "CPUS_ALL_REGIONS" for quota in project.quotas):
            yield _quota_check("quota of all regions", project.quotas, ["CPUS_ALL_REGIONS"])

    def _image_check(self) -> Iterator[Check]:
        remedy = "make an image, or name one of gcp.image_projects in machine.image"
        try:
            images = self._images.listed()
        except TangoCloudError as error:
            yield Check("images", False, str(error), remedy)
            return
        names = list(dict.fromkeys(image.name for image in images))
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        # Those of Google's public projects are not listed, and can be used all the same.
        usable = bool(names) or bool(self._settings.image_projects)
        finding = ", ".join(names[:5]) + more if names else "none listed"
        yield Check("images", usable, finding, "" if names else remedy, warning=not names)

    def _offer_check(self) -> Iterator[Check]:
        try:
            offers = self._offers()
        except TangoCloudError as error:
            yield Check("a default machine", False, str(error), "correct the settings")
            return
        zones = ", ".join(dict.fromkeys(offer.zone for offer in offers))
        first = f"{offers[0].instance_type}, {offers[0].market}"
        yield Check("a default machine", True, f"{first}; {len(offers)} offers in {zones}")

    def _permission_check(self) -> Iterator[Check]:
        """By what Compute Engine tells of things that are there: an instance of ours, an image, the
        subnetworks of the settings. What may be made it does not tell."""
        asked = (self._of_an_instance, self._of_an_image, self._of_the_subnetworks)
        with ThreadPoolExecutor(len(asked)) as pool:
            answers = [future.result() for future in [pool.submit(ask) for ask in asked]]
        missing = [permission for answer in answers for permission in answer[0]]
        unknown = [permission for answer in answers for permission in answer[1]]
        finding = f"missing: {', '.join(missing)}" if missing else "nothing is missing"
        finding += f", as far as can be told ({', '.join([*unknown, *_NEVER_TOLD])} cannot)"
        label = f"{tags.DEPLOYMENT} = {tags.encode(self._deployment)}"
        yield Check(
            "Google permissions",
            not missing,
            f"{finding} (instances labelled {label})",
            ROLE if missing else "",
        )

    def _of_an_instance(self) -> Answer:
        wanted = tags.encode(self._deployment)
        request = {
            "project": self._clients.project.name,
            "filter": f'labels.{tags.DEPLOYMENT}="{wanted}"',
            "max_results": 1,
        }
        try:
            with asking():
                found = self._clients.instances.aggregated_list(
                    request=request, **self._clients.options
                )
                instances = [i for _, part in found for i in part.instances]
        except AuthenticationError:
            return ["compute.instances.list"], _OF_AN_INSTANCE
        except TangoCloudError:
            return [], ["compute.instances.list", *_OF_AN_INSTANCE]
        if not instances:
            return [], _OF_AN_INSTANCE
        where = {"zone": places.last(instances[0].zone), "resource": instances[0].name}
        return self._of(self._clients.instances, where, _OF_AN_INSTANCE)

    def _of_an_image(self) -> Answer:
        try:
            images = self._images.listed()
        except TangoCloudError:
            images = ()
        if not images:
            return [], _OF_AN_IMAGE
        where = {"project": images[0].project, "resource": images[0].own_name}
        return self._of(self._clients.images, where, _OF_AN_IMAGE)

    def _of_the_subnetworks(self) -> Answer:
        asked = [*_OF_A_SUBNETWORK, *([_OUTSIDE] if self._settings.public_address else [])]
        if not self._settings.network:
            return [], asked
        missing: dict[str, None] = {}
        unknown: dict[str, None] = {}
        for region in self._regions:
            path = self._settings.subnetworks[region]
            project = _project_of(path) or self._clients.project.name
            where = {"project": project, "region": region, "resource": places.last(path)}
            some, others = self._of(self._clients.subnetworks, where, asked)
            missing |= dict.fromkeys(some)
            unknown |= dict.fromkeys(others)
        return list(missing), list(unknown)

    def _of(self, client: Any, where: Mapping[str, str], asked: Sequence[str]) -> Answer:
        request = {
            "project": self._clients.project.name,
            **where,
            "test_permissions_request_resource": {"permissions": list(asked)},
        }
        try:
            with asking():
                answer = client.test_iam_permissions(request=request, **self._clients.options)
                granted = set(answer.permissions)
        except TangoCloudError:
            return [], asked
        return [permission for permission in asked if permission not in granted], []

    def _reach_check(self) -> Iterator[Check]:
        settings = self._settings
        try:
            ranges = network.ssh_from("gcp.ssh_from", settings.ssh_from)
        except TangoCloudError as error:
            yield Check("SSH from", False, str(error), "set gcp.ssh_from")
            return
        source = "gcp.ssh_from" if settings.ssh_from else "this host's own address"
        yield Check("SSH from", True, f"{', '.join(ranges)} ({source}); {self._way()}")
        if settings.network:
            yield from self._network_checks(settings.network, ranges)

    def _network_checks(self, path: str, ranges: Sequence[str]) -> Iterator[Check]:
        """Of a network that was there before: its subnetworks, and whom it lets in besides."""
        project = _project_of(path) or self._clients.project.name
        try:
            for region in self._regions:
                self._look_at_subnetwork(region)
            with asking():
                rules = list(
                    self._clients.firewalls.list(
                        request={"project": project}, **self._clients.options
                    )
                )
        except TangoCloudError as error:
            yield Check("network", False, str(error), "correct gcp.network or gcp.subnetworks")
            return
        others = openings.found(rules, path, ranges)
        subnetworks = ", ".join(f"{r}: {self._settings.subnetworks[r]}" for r in self._regions)
        finding = f"{path} ({subnetworks})"
        if others:
            finding += f"; its own rules let others reach port 22: {', '.join(others)}"
        remedy = "remove these rules, or give them target tags" if others else ""
        yield Check("network", True, finding, remedy, warning=bool(others))

    def _look_at_subnetwork(self, region: str) -> None:
        path = self._settings.subnetworks[region]
        request = {
            "project": _project_of(path) or self._clients.project.name,
            "region": region,
            "subnetwork": places.last(path),
        }
        with asking():
            self._clients.subnetworks.get(request=request, **self._clients.options)

    def _way(self) -> str:
        """How machines are reached, in words."""
        if self._settings.public_address:
            return "machines have public addresses"
        if self._settings.network:
            return f"machines have private addresses in {self._settings.network}"
        return (
            "machines have private addresses in a network of their own, which this host reaches by "
            "peering or a VPN only: else set gcp.network, or gcp.public_address"
        )


def _all(find: Callable[[], Iterator[Check]]) -> list[Check]:
    return list(find())


def _project_of(path: str) -> str:
    """Empty for a name alone."""
    return path.split("/")[1] if path.startswith("projects/") else ""


def _quota_check(subject: str, quotas: Sequence[compute_v1.Quota], metrics: Sequence[str]) -> Check:
    told = {quota.metric: quota for quota in quotas if quota.metric in metrics}
    used_up = [name for name, quota in told.items() if quota.usage >= quota.limit]
    finding = ", ".join(f"{n} {q.usage:g} of {q.limit:g} used" for n, q in told.items())
    remedy = "ask Google for more: IAM & Admin, Quotas" if used_up else ""
    return Check(subject, not used_up, finding or "not known", remedy)
