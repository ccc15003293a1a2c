"""Others' things in a project on an emulated Compute Engine are never touched."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from ..compute.client import ComputeEmulation
from ..gcp import IMAGE, ZONES, make_gcp_deployment, zone_of
from .neighbours import PREFIX, Account, Labels, NeighboursContract, ours

ZONE = ZONES[0]
MACHINE_TYPE = f"zones/{ZONE}/machineTypes/e2-standard-2"
NUMBERS = itertools.count()


class GcpAccount(Account):
    """A disk of `thing-7` is called `disk-of-thing-7`."""

    def __init__(
        self, emulation: ComputeEmulation, network: Mapping[str, str], folder: Path
    ) -> None:
        self.deployment = make_gcp_deployment(folder, emulation, folder / "state", PREFIX)
        self._emulation = emulation
        self._image = f"projects/{emulation.project}/global/images/{IMAGE}"
        subnetworks = json.loads(network["TANGO_CLOUD_GCP__SUBNETWORKS"])
        self._subnetwork = subnetworks[ZONE.rpartition("-")[0]]

    def make(self, labels: Labels, *, keep_disk: bool = False) -> str:
        name = f"thing-{next(NUMBERS)}"
        disk = {
            "boot": True,
            "autoDelete": not keep_disk,
            "initializeParams": {
                "diskName": f"disk-of-{name}",
                "sourceImage": self._image,
                "labels": labels,
            },
        }
        body = {
            "name": name,
            "machineType": MACHINE_TYPE,
            "labels": labels,
            "disks": [disk],
            "networkInterfaces": [{"subnetwork": self._subnetwork}],
        }
        self._emulation.done(self._emulation.ask("POST", f"zones/{ZONE}/instances", body))
        return f"{ZONE}/{name}"

    def leave(self, labels: Labels) -> str:
        instance_id = self.make(labels, keep_disk=True)
        self._emulation.delete(instance_id)
        return instance_id.replace("/", "/disk-of-")

    def strays(self) -> Collection[str]:
        return [self.leave(ours())]

    def things(self) -> Mapping[str, object]:
        disks = self._emulation.ask("GET", f"zones/{ZONE}/disks").get("items", ())
        return {
            f"{zone_of(thing)}/{thing['name']}": (thing["status"], thing.get("labels"))
            for thing in (*self._emulation.instances(), *disks)
        }

    def remove(self, things: Collection[str]) -> None:
        instances = {thing for thing in things if "/disk-of-" not in thing}
        for instance_id in instances & self.things().keys():
            self._emulation.delete(instance_id)
        for disk in self.things().keys() & set(things):
            zone, _, name = disk.partition("/")
            self._emulation.done(self._emulation.ask("DELETE", f"zones/{zone}/disks/{name}"))


@pytest.fixture
def account(compute: ComputeEmulation, gcp_network: dict[str, str], tmp_path: Path) -> GcpAccount:
    return GcpAccount(compute, gcp_network, tmp_path)


class TestGcpNeighbours(NeighboursContract):
    pass
