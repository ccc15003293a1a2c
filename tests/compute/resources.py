"""What there is in the cloud: resources by kind and place, their links and fingerprints."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import itertools
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .errors import Error

PREFIX = "https://www.googleapis.com/compute/v1/"
"""Of links, as Google gives them: names. Nobody follows them here; who did would leave this
machine, which a test forbids."""
Resource = dict[str, Any]


class Place(NamedTuple):
    """`scope` is `global`, `regions/<region>` or `zones/<zone>`."""

    project: str
    scope: str
    kind: str
    """The collection: `instances`, `networks`, ..."""
    name: str = ""

    @property
    def path(self) -> str:
        return "/".join(part for part in ("projects", *self) if part)

    @property
    def link(self) -> str:
        return PREFIX + self.path

    def of(self, name: str) -> Place:
        return self._replace(name=name)


def place_of(link: str, project: str, field_name: str) -> Place:
    """Of a resource named by its whole link or by a part that is enough. Raises Error.

    Relative names begin with `projects/`, `global/`, `regions/` or `zones/`.
    """
    path = link
    if link.startswith(("http://", "https://")):
        path = link.partition("/v1/")[2]
    parts = path.split("/")
    if parts[0] == "projects" and len(parts) > 2:
        project, parts = parts[1], parts[2:]
    wide = 1 if parts[0] == "global" else 2
    if parts[0] not in {"global", "regions", "zones"} or len(parts) < wide + 2:
        text = f"Invalid value for field '{field_name}': '{link}'. The URL is malformed."
        raise Error("invalid", text)
    scope, kind, name = "/".join(parts[:wide]), parts[wide], "/".join(parts[wide + 1 :])
    return Place(project, scope, kind, name)


def region_of(zone: str) -> str:
    return zone.rpartition("-")[0]


def moment(at: dt.datetime | None = None) -> str:
    """As the API writes it; default: now."""
    return (at or dt.datetime.now(dt.UTC)).isoformat(timespec="milliseconds")


def fingerprint(value: object) -> str:
    """Changes when the value does."""
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
    return base64.b64encode(digest[:8]).decode()


@dataclass
class Resources:
    """Every resource that has a name."""

    _tables: dict[str, dict[Place, Resource]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(
        default_factory=lambda: itertools.count(random.randrange(10**17, 10**18))
    )

    def number(self) -> str:
        """An id that no other resource has."""
        return str(next(self._numbers))

    def add(self, place: Place, kind: str, content: Mapping[str, Any]) -> Resource:
        """A new resource, with what each has. `kind` is the API's name of one (`instance`).

        Raises Error when the name is taken.
        """
        table = self._tables.setdefault(place.kind, {})
        if place in table:
            raise Error("alreadyExists", f"The resource '{place.path}' already exists")
        made = {
            **content,
            "kind": f"compute#{kind}",
            "id": self.number(),
            "creationTimestamp": moment(),
            "name": place.name,
            "selfLink": place.link,
        }
        table[place] = made
        return made

    def get(self, place: Place) -> Resource:
        """By name, or by id. Raises Error when there is none."""
        found = self.find(place)
        if found is None:
            raise Error("notFound", f"The resource '{place.path}' was not found")
        return found

    def find(self, place: Place) -> Resource | None:
        table = self._tables.get(place.kind, {})
        if place in table or not place.name.isdigit():
            return table.get(place)
        return next((r for r in table.values() if r["id"] == place.name), None)

    def remove(self, place: Place) -> None:
        self._tables.get(place.kind, {}).pop(place, None)

    def each(self, kind: str, project: str, scope: str = "") -> list[tuple[Place, Resource]]:
        """All of a kind in a project, or in one scope of it, in the order of lists."""
        return sorted(
            (
                (place, resource)
                for place, resource in self._tables.get(kind, {}).items()
                if place.project == project and scope in {"", place.scope}
            ),
            key=lambda item: item[0],
        )
