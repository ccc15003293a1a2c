"""Images: by name, or the newest of a family. They are PENDING for a moment."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from . import catalog
from .calls import Call
from .errors import Error, OperationError
from .operations import Operations
from .resources import Place, Resource, Resources

_INSERT_SECONDS = 0.3
_SOURCES = ("rawDisk", "sourceDisk", "sourceImage", "sourceSnapshot")


@dataclass
class Images:
    resources: Resources
    operations: Operations

    def insert(self, call: Call) -> Resource:
        if sum(name in call.body for name in _SOURCES) != 1:
            raise Error("invalid", f"An image has one source: {', '.join(_SOURCES)}.")
        place = call.place("images", call.body["name"])
        more: Resource = {"status": "PENDING"}
        if "sourceDisk" in call.body:
            more["diskSizeGb"] = self._disk(call)["sizeGb"]
        image = catalog.add_image(self.resources, place, **{**call.body, **more})

        async def make() -> None:
            await asyncio.sleep(_INSERT_SECONDS)
            if fault := call.struck.get("operation-error"):
                image["status"] = "FAILED"
                raise OperationError(fault.code, fault.message)
            image["status"] = "READY"

        return self.operations.begin("insert", place, make)

    def _disk(self, call: Call) -> Resource:
        """The one that an image is made of. Raises Error when it is not there, or when an instance
        that runs has it."""
        source = str(call.body["sourceDisk"])
        zone, _, name = source.partition("/zones/")[2].partition("/disks/")
        disk = self.resources.get(Place(call.project, f"zones/{zone}", "disks", name))
        users = () if call.query.get("forceCreate") else disk.get("users", ())
        for user in users:
            at = Place(call.project, f"zones/{zone}", "instances", user.rpartition("/")[2])
            if self.resources.get(at)["status"] != "TERMINATED":
                text = f"The disk resource '{source}' is already being used by '{user}'"
                raise Error("resourceInUseByAnotherResource", text)
        return disk

    def delete(self, call: Call) -> Resource:
        place = call.place("images", call.path["image"])
        self.resources.get(place)

        async def remove() -> None:
            self.resources.remove(place)

        return self.operations.begin("delete", place, remove)

    def from_family(self, call: Call) -> Resource:
        place = call.place("images", f"family/{call.path['family']}")
        found = self.of_family(place)
        if found is None:
            raise Error("notFound", f"The resource '{place.path}' was not found")
        return self.resources.get(found)

    def of_family(self, place: Place) -> Place | None:
        """The newest image of the family that the place names; None when all are deprecated."""
        family = place.name.removeprefix("family/")
        found = [
            (int(image["id"]), where)
            for where, image in self.resources.each("images", place.project)
            if image.get("family") == family
            and image["status"] == "READY"
            and not image.get("deprecated")
        ]
        return max(found)[1] if found else None
