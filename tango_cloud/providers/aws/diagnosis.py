"""What `tango-cloud doctor` finds out about an AWS account. Nothing is made or changed by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from tango_cloud.core import tags
from tango_cloud.core.errors import AuthenticationError, TangoCloudError
from tango_cloud.core.model import Offer
from tango_cloud.providers import network
from tango_cloud.providers.aws.clients import Clients
from tango_cloud.providers.aws.errors import CREDENTIALS, POLICY, asking, says
from tango_cloud.providers.aws.images import Images
from tango_cloud.providers.protocol import Check

_QUOTAS = {"on-demand": "L-1216C47A", "spot": "L-34B43A08"}
"""vCPUs of standard instance types (A, C, D, H, I, M, R, T, Z)."""
_LOOKS = (
    "describe_instances",
    "describe_subnets",
    "describe_vpcs",
    "describe_security_groups",
    "describe_launch_templates",
    "describe_launch_template_versions",
    "describe_volumes",
)
"""Those that no other check makes."""
_AT_ONCE = 8


class Diagnosis:
    """`clients` should give up soon. `offers` are those for the default shape, `way` says how
    machines are reached."""

    def __init__(
        self,
        clients: Clients,
        *,
        deployment: str,
        images: Images,
        offers: Callable[[], Sequence[Offer]],
        spot: bool,
        ssh_from: Sequence[str],
        way: str,
    ) -> None:
        self._clients = clients
        self._deployment = deployment
        self._images = images
        self._offers = offers
        self._spot = spot
        self._ssh_from = ssh_from
        self._way = way

    def checks(self) -> Sequence[Check]:
        """All of them at the same time; those that need credentials only if there are some."""
        try:
            region = self._clients.region
            first = Check("AWS region", True, f"{region.name} ({region.source})")
        except TangoCloudError as error:
            return [Check("AWS region", False, str(error), "set aws.region or AWS_REGION")]
        identity = self._identity()
        if not identity.ok:
            return [first, identity]
        rest = [
            self._quota_checks,
            self._image_check,
            self._offer_check,
            self._permission_checks,
            self._reach_check,
        ]
        with ThreadPoolExecutor(len(rest)) as pool:
            found = [future.result() for future in [pool.submit(list, c()) for c in rest]]
        return [first, identity, *(check for part in found for check in part)]

    def _identity(self) -> Check:
        try:
            with asking():
                caller = self._clients.sts.get_caller_identity()
        except TangoCloudError as error:
            remedy = CREDENTIALS if isinstance(error, AuthenticationError) else "see the error"
            return Check("AWS identity", False, str(error), remedy)
        return Check("AWS identity", True, f"{caller['Arn']}, account {caller['Account']}")

    def _quota_checks(self) -> Iterator[Check]:
        for market in ("on-demand", "spot") if self._spot else ("on-demand",):
            subject = f"quota of {market} vCPUs"
            try:
                with asking():
                    quota = self._clients.quotas.get_service_quota(
                        ServiceCode="ec2", QuotaCode=_QUOTAS[market]
                    )["Quota"]["Value"]
            except TangoCloudError as error:
                refused = isinstance(error, AuthenticationError)
                remedy = "allow servicequotas:GetServiceQuota to this identity" if refused else ""
                yield Check(subject, True, f"not known: {error}", remedy, warning=refused)
            else:
                yield Check(
                    subject,
                    quota > 0,
                    f"{quota:g}",
                    "" if quota > 0 else "ask AWS for more: Service Quotas, Amazon EC2",
                )

    def _image_check(self) -> Iterator[Check]:
        remedy = "make an AMI with a tag Name, or set aws.image_owners"
        try:
            images = self._images.listed()
        except TangoCloudError as error:
            yield Check("images", False, str(error), remedy)
            return
        names = ", ".join(dict.fromkeys(image.name for image in images[:5]))
        more = f" and {len(images) - 5} more" if len(images) > 5 else ""
        yield Check(
            "images", bool(images), f"{names}{more}" if images else "none", "" if images else remedy
        )

    def _offer_check(self) -> Iterator[Check]:
        try:
            offers = self._offers()
        except TangoCloudError as error:
            yield Check("a default machine", False, str(error), "correct the settings")
            return
        zones = ", ".join(dict.fromkeys(offer.zone for offer in offers))
        first = f"{offers[0].instance_type}, {offers[0].market}"
        yield Check("a default machine", True, f"{first}; {len(offers)} offers in {zones}")

    def _permission_checks(self) -> Iterator[Check]:
        asked = [*_LOOKS, "run_instances", "terminate_instances"]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = dict(zip(asked, pool.map(self._may, asked), strict=True))
        missing = [name for name, answer in answers.items() if answer is False]
        unknown = [name for name, answer in answers.items() if answer is None]
        actions = ", ".join(f"ec2:{name.title().replace('_', '')}" for name in missing or unknown)
        finding = f"missing: {actions}" if missing else "those that machines need"
        if unknown and not missing:
            finding += f", as far as can be told without a machine or an image ({actions} cannot)"
        label = f"{tags.DEPLOYMENT} = {tags.encode(self._deployment)}"
        yield Check(
            "AWS permissions",
            not missing,
            f"{finding} (instances tagged {label})",
            POLICY if missing else "",
        )

    def _may(self, name: str) -> bool | None:
        """By a dry run, which EC2 answers with what it would have said. None: cannot be told.

        The envelope's actions are not asked after: emulations carry out a dry run of them.
        """
        try:
            arguments = self._arguments(name)
            if arguments is None:
                return None
            with asking():
                getattr(self._clients.ec2, name)(DryRun=True, **arguments)
        except TangoCloudError as error:
            if says(error, {"DryRunOperation"}):
                return True
            return False if says(error, {"UnauthorizedOperation", "AccessDenied"}) else None
        # Who answers a dry run of a look was allowed to look.
        return True

    def _arguments(self, name: str) -> dict[str, object] | None:
        """What an order of ours would say. Policies look at the tags, so these must be right."""
        label = {"Key": tags.DEPLOYMENT, "Value": tags.encode(self._deployment)}
        if name == "run_instances":
            images, offers = self._images.listed(), self._offers()
            if not images:
                return None
            tagged = [{"ResourceType": t, "Tags": [label]} for t in ("instance", "volume")]
            return {
                "ImageId": images[0].image_id,
                "InstanceType": offers[0].instance_type,
                "MinCount": 1,
                "MaxCount": 1,
                "TagSpecifications": tagged,
            }
        if name == "terminate_instances":
            with asking():
                answer = self._clients.ec2.describe_instances(
                    Filters=[
                        {"Name": f"tag:{label['Key']}", "Values": [label["Value"]]},
                        {"Name": "instance-state-name", "Values": ["pending", "running"]},
                    ],
                    MaxResults=5,
                )
            ids = [i["InstanceId"] for r in answer["Reservations"] for i in r["Instances"]]
            return {"InstanceIds": ids[:1]} if ids else None
        # An emulation that does not know dry runs answers in full.
        return {"MaxResults": 5}

    def _reach_check(self) -> Iterator[Check]:
        try:
            ranges = network.ssh_from("aws.ssh_from", self._ssh_from)
        except TangoCloudError as error:
            yield Check("SSH from", False, str(error), "set aws.ssh_from")
            return
        source = "aws.ssh_from" if self._ssh_from else "this host's own address"
        yield Check("SSH from", True, f"{', '.join(ranges)} ({source}); {self._way}")
