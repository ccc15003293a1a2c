"""CreateImage as EC2 has it and LocalStack has not: a name only once, snapshots that are tagged."""

from __future__ import annotations

import re
from collections.abc import Mapping

from emulation import ec2
from emulation.ec2 import Backend, Error, Parameters
from emulation.launches import check_tags

_KIND = re.compile(r"(TagSpecification\.\d+)\.ResourceType")


async def create_image(
    backend: Backend, region: str, headers: Mapping[str, str], given: Parameters
) -> tuple[int, bytes]:
    """Status and body of the answer. Raises Error as EC2 would."""
    check_tags(given)
    await _check_name(backend, region, given.get("Name", ""))
    plain, tags = _without_snapshot_tags(given)
    status, body = await backend.post(headers, plain)
    if status == 200 and tags:
        image_id = ec2.text(ec2.tree(body), "imageId")
        image = await backend.ask(region, "DescribeImages", **{"ImageId.1": image_id})
        parts = [element.text or "" for element in image.iter("snapshotId")]
        await backend.ask(region, "CreateTags", **ec2.numbered("ResourceId", parts), **tags)
    return status, body


async def _check_name(backend: Backend, region: str, name: str) -> None:
    filters = {"Filter.1.Name": "name", "Filter.1.Value.1": name, "Owner.1": "self"}
    found = await backend.ask(region, "DescribeImages", **filters)
    for image in found.findall("imagesSet/item"):
        text = f"AMI name {name} is already in use by AMI {ec2.text(image, 'imageId')}"
        raise Error("InvalidAMIName.Duplicate", text)


def _without_snapshot_tags(given: Parameters) -> tuple[dict[str, str], dict[str, str]]:
    """The request without them, and they as CreateTags has them."""
    for key, value in given.items():
        if (found := _KIND.fullmatch(key)) and value == "snapshot":
            prefix = f"{found[1]}."
            rest = {k: v for k, v in given.items() if not k.startswith(prefix)}
            tags = {
                k.removeprefix(prefix): v for k, v in given.items() if k.startswith(f"{prefix}Tag.")
            }
            return rest, tags
    return dict(given), {}
