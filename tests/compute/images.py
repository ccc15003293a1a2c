"""Images: by name, or the newest of a family."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from . import catalog
from .calls import Call
from .errors import Error
from .operations import Operations
from .resources import Place, Resource, Resources

_SOURCES = ("rawDisk", "sourceDisk", "sourceImage", "sourceSnapshot")


@dataclass
class Images:
    resources: Resources
    operations: Operations

    def insert(self, call: Call) -> Resource:
        if sum(name in call.body for name in _SOURCES) != 1:
            raise Error("invalid", f"An image has one source: {', '.join(_SOURCES)}.")
        place = call.place("images", call.body["name"])
        catalog.add_image(self.resources, place, **call.body)
        return self.operations.begin("insert", place, _nothing)

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
            if image.get("family") == family and not image.get("deprecated")
        ]
        return max(found)[1] if found else None


async def _nothing() -> None:
    await asyncio.sleep(0)
