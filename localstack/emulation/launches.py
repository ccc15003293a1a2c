"""RunInstances as EC2 has it and LocalStack has not: validation, client tokens, templates."""

from __future__ import annotations

import asyncio
import base64
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field

from emulation import ec2
from emulation.ec2 import Backend, Error, Parameters
from emulation.faults import Call
from emulation.hosts import Launched

_USER_DATA_BYTES = 16384
_IMAGE = re.compile(r"ami-[0-9a-f]+")
_TAG = re.compile(r"((?:TagSpecification\.\d+\.)?Tag\.\d+)\.Key")
_SHUTDOWN = "InstanceInitiatedShutdownBehavior"


@dataclass
class Answer:
    """What a token has been answered, and to what."""

    request: Mapping[str, str]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    body: bytes = b""
    instance_ids: tuple[str, ...] = ()


@dataclass
class Launches:
    backend: Backend
    _images: set[str] = field(default_factory=set)
    _types: set[str] = field(default_factory=set)
    _zones: dict[str, str] = field(default_factory=dict)
    _templates: dict[tuple[str, str, str], ET.Element] = field(default_factory=dict)
    _tokens: dict[tuple[str, str], Answer] = field(default_factory=dict)

    def answer(self, region: str, given: Parameters) -> Answer:
        """What this request's token has been answered; the caller holds its lock meanwhile.

        Raises Error when the token came with other parameters.
        """
        token = given.get("ClientToken")
        # Tags are compared too; the version of the API, and what a signature in the form adds, not.
        request = {key: value for key, value in given.items() if key[:1].isupper()}
        if not token:
            return Answer(request)
        answer = self._tokens.setdefault((region, token), Answer(request))
        if answer.request != request:
            raise Error(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in "
                "previous request(s).",
            )
        return answer

    def forget_terminated(self, instance_ids: set[str]) -> None:
        """From now on the tokens of these instances are answered with an error, as EC2 does."""
        for answer in self._tokens.values():
            if instance_ids.intersection(answer.instance_ids):
                answer.body = b""

    async def complete(self, region: str, given: Parameters) -> tuple[dict[str, str], Call]:
        """The request with what its launch template adds to it and LocalStack does not, and what
        is known of it."""
        template = await self._template(region, given)
        full = dict(given)
        if template is not None:
            behavior = ec2.text(template, "instanceInitiatedShutdownBehavior")
            if behavior and _SHUTDOWN not in full:
                full[_SHUTDOWN] = behavior
        kind = given.get("InstanceType") or (
            ec2.text(template, "instanceType") if template is not None else ""
        )
        market = given.get("InstanceMarketOptions.MarketType") or (
            ec2.text(template, "instanceMarketOptions/marketType") if template is not None else ""
        )
        zone = await self._zone(region, given)
        return full, Call(
            "ec2:RunInstances",
            zone,
            kind,
            market or "on-demand",
            dry=given.get("DryRun") == "true",
            token=given.get("ClientToken", ""),
        )

    async def check(self, region: str, given: Parameters, call: Call) -> None:
        """Raises Error as EC2 would."""
        check_tags(given)
        if len(base64.b64decode(given.get("UserData", ""))) > _USER_DATA_BYTES:
            raise Error("InvalidParameterValue", "User data is limited to 16384 bytes")
        await self._check_image(region, given)
        await self._check_type(region, call.instance_type)

    async def _check_image(self, region: str, given: Parameters) -> None:
        image = given.get("ImageId", "")
        if not image or image in self._images:
            return
        if not _IMAGE.fullmatch(image):
            raise Error("InvalidAMIID.Malformed", f'Invalid id: "{image}"')
        try:
            await self.backend.ask(region, "DescribeImages", **{"ImageId.1": image})
        except Error as error:
            text = f"The image id '[{image}]' does not exist"
            raise Error("InvalidAMIID.NotFound", text) from error
        self._images.add(image)

    async def _check_type(self, region: str, kind: str) -> None:
        if not kind or kind in self._types:
            return
        try:
            await self.backend.ask(region, "DescribeInstanceTypes", **{"InstanceType.1": kind})
        except Error as error:
            text = f"Invalid value '{kind}' for InstanceType."
            raise Error("InvalidParameterValue", text) from error
        self._types.add(kind)

    async def _zone(self, region: str, given: Parameters) -> str:
        subnet = ec2.first(given, "SubnetId", "NetworkInterface.1.SubnetId")
        if not subnet:
            return given.get("Placement.AvailabilityZone", "")
        if subnet not in self._zones:
            found = await self.backend.ask(region, "DescribeSubnets", **{"SubnetId.1": subnet})
            self._zones[subnet] = ec2.text(found, ".//availabilityZone")
        return self._zones[subnet]

    async def _template(self, region: str, given: Parameters) -> ET.Element | None:
        name = given.get("LaunchTemplate.LaunchTemplateName", "")
        template_id = given.get("LaunchTemplate.LaunchTemplateId", "")
        version = given.get("LaunchTemplate.Version", "$Default")
        if not (name or template_id):
            return None
        key = (template_id or name, version, region)
        if key not in self._templates:
            which = (
                {"LaunchTemplateId": template_id} if template_id else {"LaunchTemplateName": name}
            )
            found = await self.backend.ask(
                region,
                "DescribeLaunchTemplateVersions",
                **which,
                **{"LaunchTemplateVersion.1": version},
            )
            data = found.find(".//launchTemplateData")
            if data is None:
                return None
            if version.startswith("$"):
                return data  # it may name another one tomorrow
            self._templates[key] = data
        return self._templates[key]


def check_tags(given: Parameters) -> None:
    """Raises Error when a tag of RunInstances or CreateTags is one that EC2 does not take."""
    for name in given:
        if not (found := _TAG.fullmatch(name)):
            continue
        key, value = given[name], given.get(f"{found[1]}.Value", "")
        if key.lower().startswith("aws:"):
            text = f"Tag keys starting with 'aws:' are reserved for internal use: {key}"
            raise Error("InvalidParameterValue", text)
        if not 1 <= len(key) <= 128:
            text = "Tag key exceeds the maximum length of 128 characters"
            raise Error("InvalidParameterValue", text)
        if len(value) > 256:
            text = f"Tag value exceeds the maximum length of 256 characters: '{value}'"
            raise Error("InvalidParameterValue", text)


def launched(answer: ET.Element, region: str, given: Parameters, call: Call) -> list[Launched]:
    """The instances of an answer to RunInstances."""
    return [
        Launched(
            instance_id=ec2.text(item, "instanceId"),
            address=(address := ec2.text(item, "privateIpAddress")),
            image=ec2.text(item, "imageId"),
            instance_type=ec2.text(item, "instanceType"),
            zone=ec2.text(item, "placement/availabilityZone"),
            region=region,
            market=call.market,
            user_data=ec2.user_data(given),
            hostname="ip-" + address.replace(".", "-"),
        )
        for item in answer.findall("instancesSet/item")
    ]
