"""google_compute_instance: made, read and deleted, never changed."""

from __future__ import annotations

from typing import Any

from .compute import Answer, Compute, Refused
from .resources import Kind, Tainted, base, camel, full, without_none
from .schema import Values, path

_SCHEDULING = (
    *("provisioning_model", "preemptible", "automatic_restart", "on_host_maintenance"),
    "instance_termination_action",
)
_SHIELDED = ("enable_secure_boot", "enable_vtpm", "enable_integrity_monitoring")


class Instance(Kind):
    simulated = frozenset(
        {
            *("name", "description", "zone", "machine_type", "labels", "tags", "metadata"),
            *("can_ip_forward", "deletion_protection"),
            *("boot_disk.auto_delete", "boot_disk.kms_key_self_link"),
            *(
                f"boot_disk.initialize_params.{name}"
                for name in ("image", "size", "type", "labels")
            ),
            *(f"network_interface.{name}" for name in ("network", "subnetwork")),
            *(f"scheduling.{name}" for name in _SCHEDULING),
            *(f"scheduling.max_run_duration.{name}" for name in ("seconds", "nanos")),
            *(f"shielded_instance_config.{name}" for name in _SHIELDED),
        }
    )
    # The real one changes some of these in place.
    replaced_by = frozenset({name.split(".")[0] for name in simulated})

    def create(self, compute: Compute, values: Values) -> Values:
        place = f"projects/{compute.project}/zones/{values['zone']}/instances"
        try:
            operation = compute.request("POST", place, self.body(compute, values))
        except Refused as refused:
            raise Refused(f"Error creating instance: {refused}") from refused
        # A wait that fails or is cancelled leaves nothing in the state, though the instance may be.
        compute.wait(operation, "instance to create", compute.project)
        place = f"{place}/{values['name']}"
        try:
            answer = compute.wait_for_status(place, "RUNNING")
        except Refused as refused:
            raise Tainted(
                "Error waiting for status: Error waiting for instance to reach desired status "
                f"RUNNING: {refused}",
                {"id": place, "project": compute.project, "deletion_policy": "DELETE"},
            ) from refused
        return self.known(compute, answer)

    def read(self, compute: Compute, values: Values) -> Values | None:
        answer = self._get(compute, values["id"])
        return None if answer is None else self.known(compute, answer)

    def _get(self, compute: Compute, place: str) -> Answer | None:
        try:
            return compute.get(place)
        except Refused as refused:
            if refused.status == 404:
                return None
            name = f"Instance {base(place)}"
            raise Refused(f"Error when reading or editing {name}: {refused}") from refused

    def update(self, compute: Compute, values: Values) -> Values:
        raise Refused("the simulated plugin changes no instance")

    def delete(self, compute: Compute, values: Values) -> None:
        if values.get("deletion_protection"):
            raise Refused(
                f"Cannot delete instance {values['name']}: instance Deletion Protection is enabled."
            )
        try:
            operation = compute.request("DELETE", values["id"])
        except Refused as refused:
            # One that is gone, too: only a refresh before takes it out of the state.
            raise Refused(f"Error deleting instance: {refused}", refused.status) from refused
        compute.wait(operation, "instance to delete", compute.project)

    def body(self, compute: Compute, values: Values) -> Answer:
        project = f"projects/{compute.project}"
        zone = f"{project}/zones/{values['zone']}"
        region = f"{project}/regions/{values['zone'].rpartition('-')[0]}"
        items = [
            {"key": key, "value": text} for key, text in sorted((values["metadata"] or {}).items())
        ]
        made = {
            "name": values["name"],
            "description": values["description"],
            "machineType": full(values["machine_type"], f"{zone}/machineTypes"),
            "labels": {**compute.labels, **(values["labels"] or {})},
            "tags": {"items": sorted(values["tags"] or [])},
            "metadata": {"items": items},
            "canIpForward": bool(values["can_ip_forward"]),
            "deletionProtection": bool(values["deletion_protection"]),
            "disks": [_disk(disk, zone) for disk in values["boot_disk"]],
            "networkInterfaces": [
                _interface(one, project, region) for one in values["network_interface"]
            ],
        }
        for scheduling in values["scheduling"]:
            made["scheduling"] = _scheduling(scheduling)
        for shielded in values["shielded_instance_config"]:
            made["shieldedInstanceConfig"] = _spelled(shielded, _SHIELDED)
        return without_none(made)

    def known(self, compute: Compute, answer: Answer) -> Values:
        labels = answer.get("labels", {})
        # What this plugin adds is not the configuration's.
        own = {key: text for key, text in labels.items() if key not in compute.labels}
        items = answer.get("metadata", {}).get("items", [])
        return {
            "id": path(answer["selfLink"]),
            "instance_id": answer["id"],
            "name": answer["name"],
            "project": compute.project,
            "zone": base(answer["zone"]),
            "machine_type": base(answer["machineType"]),
            "labels": own,
            "terraform_labels": labels,
            "effective_labels": labels,
            "label_fingerprint": answer.get("labelFingerprint"),
            "tags": answer.get("tags", {}).get("items", []),
            "tags_fingerprint": answer.get("tags", {}).get("fingerprint"),
            "metadata": {item["key"]: item.get("value", "") for item in items},
            "metadata_fingerprint": answer.get("metadata", {}).get("fingerprint"),
            "cpu_platform": answer.get("cpuPlatform"),
            "creation_timestamp": answer.get("creationTimestamp"),
            "current_status": answer.get("status"),
            "deletion_policy": "DELETE",
            "self_link": answer["selfLink"],
            "boot_disk": [
                _known_disk(disk) for disk in answer.get("disks", []) if disk.get("boot")
            ],
            "network_interface": [_known_interface(n) for n in answer.get("networkInterfaces", [])],
            "scheduling": [_known_scheduling(answer.get("scheduling", {}))],
        }


def _spelled(values: Values, names: tuple[str, ...]) -> Answer:
    return without_none({camel(name): values[name] for name in names})


def _scheduling(scheduling: Values) -> Answer:
    made = _spelled(scheduling, _SCHEDULING)
    for duration in scheduling["max_run_duration"]:
        # A number of 64 bits is text in JSON.
        seconds = {"seconds": str(duration["seconds"]), "nanos": duration["nanos"]}
        made["maxRunDuration"] = without_none(seconds)
    return made


def _disk(disk: Values, zone: str) -> Answer:
    made: Answer = {"boot": True, "autoDelete": disk["auto_delete"] is not False}
    if disk["kms_key_self_link"] is not None:
        made["diskEncryptionKey"] = {"kmsKeyName": disk["kms_key_self_link"]}
    for parameters in disk["initialize_params"]:
        size, kind = parameters["size"], parameters["type"]
        made["initializeParams"] = without_none(
            {
                "sourceImage": parameters["image"],
                "diskSizeGb": None if size is None else str(size),
                "diskType": None if kind is None else f"{zone}/diskTypes/{kind}",
                "labels": parameters["labels"],
            }
        )
    return made


def _interface(interface: Values, project: str, region: str) -> Answer:
    made: Answer = {}
    if (network := interface["network"]) is not None:
        made["network"] = full(network, f"{project}/global/networks")
    if (subnetwork := interface["subnetwork"]) is not None:
        made["subnetwork"] = full(subnetwork, f"{region}/subnetworks")
    if interface["access_config"]:
        made["accessConfigs"] = [{"type": "ONE_TO_ONE_NAT"} for _ in interface["access_config"]]
    return made


def _known_disk(disk: Answer) -> Values:
    key = disk.get("diskEncryptionKey", {})
    return {
        "auto_delete": disk.get("autoDelete", False),
        "device_name": disk.get("deviceName"),
        "source": disk.get("source"),
        "kms_key_self_link": key.get("kmsKeyName", "").split("/cryptoKeyVersions")[0],
        "disk_encryption_key_sha256": key.get("sha256", ""),
        "guest_os_features": [one["type"] for one in disk.get("guestOsFeatures", [])],
        # The real plugin asks the disk itself.
        "initialize_params": [{"size": int(disk.get("diskSizeGb", 0))}],
    }


def _known_interface(interface: Answer) -> Values:
    subnetwork = interface.get("subnetwork")
    return {
        "name": interface.get("name"),
        "network": interface.get("network"),
        "subnetwork": subnetwork,
        "subnetwork_project": path(subnetwork).split("/")[1] if subnetwork else None,
        "network_ip": interface.get("networkIP"),
        "stack_type": interface.get("stackType"),
        "access_config": [
            {"nat_ip": config.get("natIP"), "network_tier": config.get("networkTier")}
            for config in interface.get("accessConfigs", [])
        ],
    }


def _known_scheduling(scheduling: Answer) -> Values:
    made: dict[str, Any] = {name: scheduling.get(camel(name)) for name in _SCHEDULING}
    duration = scheduling.get("maxRunDuration")
    made["max_run_duration"] = (
        [] if duration is None else [{"seconds": int(duration.get("seconds", 0))}]
    )
    return made
