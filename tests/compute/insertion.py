"""What Compute Engine makes of an instance that is to be inserted, and what it does not take.

The discovery document has checked names and types before; here is what it does not say.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import catalog
from .calls import Call, market
from .errors import Error
from .images import Images
from .networks import Networks
from .resources import Place, Resource, Resources, fingerprint, place_of, region_of

USER_DATA = "user-data"
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_TAG = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_LABELS = 64
_METADATA_BYTES = 256 << 10
_ALL_METADATA_BYTES = 512 << 10
_RUN_SECONDS = (30, 120 * 86400)
_DISKS = ("pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced")
_ONLY_HYPERDISK = {"c4a"}
"""Families that take no persistent disks."""
_UNSUPPORTED = ("sourceMachineImage", "sourceInstanceTemplate")


@dataclass
class Insertion:
    resources: Resources
    networks: Networks
    images: Images

    def content(self, call: Call) -> tuple[Resource, Resource]:
        """Of the instance and of its boot disk. Raises Error for what cannot be."""
        body = call.body
        for name in _UNSUPPORTED:
            if name in body or name in call.query:
                raise Error("notImplemented", f"{name} is not emulated")
        machine_type = self._machine_type(call)
        check_labels("resource.labels", body.get("labels", {}))
        disk, attached = self._boot_disk(call, machine_type)
        kind = machine_type["name"]
        instance = {
            "cpuPlatform": catalog.platform(kind),
            "canIpForward": False,
            "deletionProtection": False,
            "startRestricted": False,
            "shieldedInstanceIntegrityPolicy": {"updateAutoLearnPolicy": True},
            **body,
            "machineType": machine_type["selfLink"],
            "zone": Place(call.project, "", "zones", call.path["zone"]).link,
            "status": "PROVISIONING",
            "labelFingerprint": fingerprint(body.get("labels", {})),
            "metadata": _metadata(body.get("metadata") or {}),
            "tags": _tags(body.get("tags") or {}),
            "scheduling": _scheduling(body),
            "networkInterfaces": [self._interface(call)],
            "disks": [attached],
            "resourceStatus": {"scheduling": {}},
        }
        instance["fingerprint"] = fingerprint([call.path, body])
        return instance, disk

    def _machine_type(self, call: Call) -> Resource:
        name = "resource.machineType"
        text = call.body.get("machineType", "")
        place = place_of(text, call.project, name)
        if place.scope != call.scope:
            message = f"Invalid value for field '{name}': '{text}'. It is of another zone."
            raise Error("invalid", message)
        found = self.resources.find(place)
        if found is None:
            message = f"Machine type with name '{place.name}' does not exist in zone "
            message = f"Invalid value for field '{name}': '{text}'. {message}'{call.path['zone']}'."
            raise Error("invalid", message)
        return found

    def _boot_disk(self, call: Call, machine_type: Resource) -> tuple[Resource, Resource]:
        field = "resource.disks[0]"
        disks = call.body.get("disks") or []
        if len(disks) != 1 or not disks[0].get("boot"):
            raise Error("invalid", f"Invalid value for field '{field}': one boot disk is emulated.")
        given = disks[0]
        wanted = given.get("initializeParams") or {}
        if "sourceImage" not in wanted:
            raise Error("invalid", f"Invalid value for field '{field}': without a source image.")
        image = self._image(call, wanted["sourceImage"])
        least = int(image["diskSizeGb"])
        size = int(wanted.get("diskSizeGb") or given.get("diskSizeGb") or least)
        if size < least:
            text = f"Requested disk size cannot be smaller than the image size ({least} GB)"
            raise Error(
                "invalid", f"Invalid value for field '{field}.diskSizeGb': '{size}'. {text}"
            )
        _check_fits(call, machine_type, image)
        check_labels(f"{field}.initializeParams.labels", wanted.get("labels", {}))
        disk_type = self._disk_type(call, wanted.get("diskType", ""), machine_type["name"])
        name = wanted.get("diskName") or call.body["name"]
        features = image.get("guestOsFeatures", [])
        key = {k: v for k, v in given.items() if k == "diskEncryptionKey"}
        labels = wanted.get("labels", {})
        disk = {
            "name": name,
            "status": "READY",
            "sizeGb": str(size),
            "type": disk_type.link,
            "zone": Place(call.project, "", "zones", call.path["zone"]).link,
            "sourceImage": image["selfLink"],
            "sourceImageId": image["id"],
            "architecture": image["architecture"],
            "guestOsFeatures": features,
            "labels": labels,
            "labelFingerprint": fingerprint(labels),
            "physicalBlockSizeBytes": "4096",
            "users": [call.place("instances", call.body["name"]).link],
            **key,
        }
        attached = {
            "kind": "compute#attachedDisk",
            "type": "PERSISTENT",
            "mode": given.get("mode", "READ_WRITE"),
            "source": call.place("disks", name).link,
            "deviceName": given.get("deviceName", "persistent-disk-0"),
            "index": 0,
            "boot": True,
            "autoDelete": given.get("autoDelete", False),
            "interface": "SCSI",
            "diskSizeGb": str(size),
            "architecture": image["architecture"],
            "guestOsFeatures": features,
            **key,
        }
        return disk, attached

    def _image(self, call: Call, link: str) -> Resource:
        name = "resource.disks[0].initializeParams.sourceImage"
        place: Place | None = place_of(link, call.project, name)
        if place and place.name.startswith("family/"):
            place = self.images.of_family(place)
        found = self.resources.find(place) if place and place.kind == "images" else None
        if found is None:
            text = "The referenced image resource cannot be found."
            raise Error("invalid", f"Invalid value for field '{name}': '{link}'. {text}")
        return found

    def _disk_type(self, call: Call, link: str, machine_type: str) -> Place:
        name = "resource.disks[0].initializeParams.diskType"
        family = machine_type.partition("-")[0]
        usual = "hyperdisk-balanced" if family in _ONLY_HYPERDISK else "pd-standard"
        place = place_of(link or f"{call.scope}/diskTypes/{usual}", call.project, name)
        if place.name not in _DISKS or place.scope != call.scope:
            raise Error("invalid", f"Invalid value for field '{name}': '{link}'.")
        if family in _ONLY_HYPERDISK and not place.name.startswith("hyperdisk"):
            text = f"[{place.name}] features are not compatible for creating instance."
            raise Error("invalid", f"{text} ({family} takes Hyperdisk only)")
        return place

    def _interface(self, call: Call) -> Resource:
        name = "resource.networkInterfaces[0]"
        interfaces = call.body.get("networkInterfaces") or []
        if len(interfaces) != 1:
            raise Error("invalid", f"Invalid value for field '{name}': one of them is emulated.")
        given = interfaces[0]
        if "subnetwork" not in given:
            text = "The network of the instance is in custom mode: it needs a subnetwork."
            raise Error("invalid", f"Invalid value for field '{name}.subnetwork': ''. {text}")
        place = place_of(given["subnetwork"], call.project, f"{name}.subnetwork")
        subnetwork = self.resources.get(place)
        if place.scope != f"regions/{region_of(call.path['zone'])}":
            text = f"'{given['subnetwork']}'. It is not in the instance's region."
            raise Error("invalid", f"Invalid value for field '{name}.subnetwork': {text}")
        address = self.networks.address(place, given.get("networkIP", ""), f"{name}.networkIP")
        made = {
            **given,
            "kind": "compute#networkInterface",
            "name": "nic0",
            "network": subnetwork["network"],
            "subnetwork": subnetwork["selfLink"],
            "networkIP": address,
            "stackType": given.get("stackType", "IPV4_ONLY"),
            "fingerprint": fingerprint(address),
        }
        if given.get("accessConfigs"):
            # There is a host at the inner address alone, so that is the outer one too.
            outer = {"kind": "compute#accessConfig", "natIP": address}
            plain = {"type": "ONE_TO_ONE_NAT", "name": "External NAT", "networkTier": "PREMIUM"}
            made["accessConfigs"] = [
                {**plain, **config, **outer} for config in given["accessConfigs"]
            ]
        return made


def check_labels(field: str, labels: Mapping[str, str]) -> None:
    """Raises Error. Letters of other alphabets, which Google takes, are not taken here."""
    wrong = [k for k, v in labels.items() if not (_LABEL.fullmatch(k) and _VALUE.fullmatch(v))]
    if wrong or len(labels) > _LABELS:
        text = f"Invalid value for field '{field}': {wrong or len(labels)}. "
        raise Error("invalid", f"{text}At most {_LABELS} keys and values of [a-z0-9_-], 63 long.")


def checked_metadata(items: list[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Raises Error."""
    field = "resource.metadata.items"
    keys = Counter(item["key"] for item in items)
    if twice := [key for key, times in keys.items() if times > 1]:
        raise Error("invalid", f"Invalid value for field '{field}': duplicate keys {twice}")
    sizes = [len(item.get("value", "").encode()) for item in items]
    if max(sizes, default=0) > _METADATA_BYTES or sum(sizes) > _ALL_METADATA_BYTES:
        text = f"Invalid value for field '{field}': metadata is too large."
        raise Error("metadataTooLarge", text, 413)
    return items


def _metadata(given: Mapping[str, Any]) -> Resource:
    items = checked_metadata(list(given.get("items") or ()))
    made: Resource = {"kind": "compute#metadata", "fingerprint": fingerprint(items)}
    return {**made, "items": items} if items else made


def _tags(given: Mapping[str, Any]) -> Resource:
    items = list(given.get("items") or ())
    for tag in items:
        if not _TAG.fullmatch(tag):
            raise Error("invalid", f"Invalid value for field 'resource.tags.items': '{tag}'.")
    made: Resource = {"fingerprint": fingerprint(items)}
    return {**made, "items": items} if items else made


def _scheduling(body: Mapping[str, Any]) -> Resource:
    given: Mapping[str, Any] = body.get("scheduling") or {}
    spot = market(body) == "spot"
    model = given.get("provisioningModel", "STANDARD")
    made = {
        "onHostMaintenance": "TERMINATE" if spot else "MIGRATE",
        "automaticRestart": not spot,
        "preemptible": spot,
        "provisioningModel": model,
        **given,
    }
    faults = []
    if spot and (made["automaticRestart"] or made["onHostMaintenance"] != "TERMINATE"):
        faults.append("a spot instance is neither restarted nor migrated")
    if model == "SPOT":
        made["instanceTerminationAction"] = given.get("instanceTerminationAction", "STOP")
        made["preemptible"] = True
    limit = given.get("maxRunDuration")
    if given.get("instanceTerminationAction") and not (limit or model == "SPOT"):
        faults.append("instanceTerminationAction is for spot and for a limited run time")
    if limit:
        if spot and model != "SPOT":
            faults.append("a legacy preemptible instance has no limit of its run time")
        made["instanceTerminationAction"] = given.get("instanceTerminationAction", "STOP")
        made["maxRunDuration"] = {**limit, "seconds": str(limit.get("seconds", 0))}
        if not _RUN_SECONDS[0] <= int(limit.get("seconds", 0)) <= _RUN_SECONDS[1]:
            faults.append("maxRunDuration must be from 30 seconds to 120 days")
    if faults:
        raise Error("invalid", f"Invalid value for field 'resource.scheduling': {faults}")
    return made


def _check_fits(call: Call, machine_type: Resource, image: Resource) -> None:
    """Raises Error when the machine cannot boot from the image."""
    has, wanted = image["architecture"], machine_type["architecture"]
    if has != wanted:
        text = f"Requested boot disk architecture ({has}) is not compatible with machine type "
        raise Error("invalid", f"{text}architecture ({wanted}).")
    shielded = call.body.get("shieldedInstanceConfig") or {}
    features = {feature["type"] for feature in image.get("guestOsFeatures", ())}
    if any(shielded.values()) and "UEFI_COMPATIBLE" not in features:
        text = f"The image '{image['name']}' is not UEFI_COMPATIBLE, as Shielded VM needs it."
        raise Error("invalid", f"Invalid value for field 'resource.shieldedInstanceConfig': {text}")
