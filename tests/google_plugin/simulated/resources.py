"""The kinds of resources: what of them is simulated, and how the API spells it.

Each is one class with the same steps. All values are those of the schema; `known` is what an
answer of the API says, in that form, of attributes that it may say something of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from .compute import Answer, Compute, Refused
from .schema import Values, path


class Tainted(Exception):
    """Made, and not well: it is in the state, to be replaced. `known` is what is known of it."""

    def __init__(self, message: str, known: Values) -> None:
        super().__init__(message)
        self.known = known


class Kind:
    """One kind of resource. Without a state of its own: many threads use it."""

    simulated: ClassVar[frozenset[str]]
    """The arguments that are understood; any other is refused rather than ignored."""
    replaced_by: ClassVar[frozenset[str]]
    """The arguments that only a new resource can have otherwise."""

    def create(self, compute: Compute, values: Values) -> Values:
        """What is known of the new one. Raises Refused, and Terraform knows of none, or Tainted."""
        raise NotImplementedError

    def read(self, compute: Compute, values: Values) -> Values | None:
        """What is known of it now, None when it is gone. Raises Refused."""
        raise NotImplementedError

    def update(self, compute: Compute, values: Values) -> Values:
        """Raises Refused."""
        raise NotImplementedError

    def delete(self, compute: Compute, values: Values) -> None:
        """Raises Refused."""
        raise NotImplementedError


class Simple(Kind):
    """A resource whose arguments are the API's, in another spelling."""

    noun: ClassVar[str]
    """The real plugin's name for it, in its messages."""
    collection: ClassVar[str]
    links: ClassVar[Mapping[str, str]] = {}
    """Arguments that name another global resource, and that one's collection."""

    def scope(self, values: Values) -> str:
        return "global"

    def create(self, compute: Compute, values: Values) -> Values:
        project = values.get("project") or compute.project
        place = f"projects/{project}/{self.scope(values)}/{self.collection}"
        try:
            operation = compute.request("POST", place, self.body(compute, values))
        except Refused as refused:
            raise Refused(f"Error creating {self.noun}: {refused}") from refused
        try:
            compute.wait(operation, f"Creating {self.noun}", project)
        except Refused as refused:
            raise Refused(f"Error waiting to create {self.noun}: {refused}") from refused
        answer = self._get(compute, f"{place}/{values['name']}")
        return {} if answer is None else self.known(project, answer)

    def read(self, compute: Compute, values: Values) -> Values | None:
        answer = self._get(compute, values["id"])
        return None if answer is None else self.known(values["project"], answer)

    def _get(self, compute: Compute, place: str) -> Answer | None:
        try:
            return compute.get(place)
        except Refused as refused:
            if refused.status == 404:
                return None
            name = f'Compute{self.noun} "{place}"'
            raise Refused(f"Error when reading or editing {name}: {refused}") from refused

    def update(self, compute: Compute, values: Values) -> Values:
        place = values["id"]
        try:
            operation = compute.request("PATCH", place, self.body(compute, values))
        except Refused as refused:
            raise Refused(f'Error updating {self.noun} "{place}": {refused}') from refused
        compute.wait(operation, f"Updating {self.noun}", values["project"])
        return self.read(compute, values) or {}

    def delete(self, compute: Compute, values: Values) -> None:
        try:
            operation = compute.request("DELETE", values["id"])
        except Refused as refused:
            if refused.status == 404:
                return
            raise Refused(f"Error when reading or editing {self.noun}: {refused}") from refused
        compute.wait(operation, f"Deleting {self.noun}", values["project"])

    def body(self, compute: Compute, values: Values) -> Answer:
        made: Answer = {}
        for name in self.simulated - {"project", "region"}:
            value = values.get(name.split(".")[0])
            if value is None or "." in name:
                continue
            project = values.get("project") or compute.project
            if name in self.links:
                value = full(value, f"projects/{project}/global/{self.links[name]}")
            made[camel(name)] = value
        return made

    def known(self, project: str, answer: Answer) -> Values:
        made = {snake(name): value for name, value in answer.items()}
        return made | {
            "id": path(answer["selfLink"]),
            "project": project,
            "deletion_policy": "DELETE",
        }


class Network(Simple):
    noun = "Network"
    collection = "networks"
    simulated = frozenset({"name", "description", "auto_create_subnetworks"})
    replaced_by = simulated

    def known(self, project: str, answer: Answer) -> Values:
        return super().known(project, answer) | {
            "network_id": answer["id"],
            "numeric_id": answer["id"],
            "routing_mode": answer.get("routingConfig", {}).get("routingMode"),
        }


class Subnetwork(Simple):
    noun = "Subnetwork"
    collection = "subnetworks"
    links: ClassVar[Mapping[str, str]] = {"network": "networks"}
    simulated = frozenset({"name", "description", "network", "region", "ip_cidr_range"})
    # The real one also lets a range grow in place.
    replaced_by = simulated

    def scope(self, values: Values) -> str:
        return f"regions/{values['region']}"

    def known(self, project: str, answer: Answer) -> Values:
        return super().known(project, answer) | {
            "subnetwork_id": int(answer["id"]),
            "region": base(answer["region"]),
        }


class Firewall(Simple):
    noun = "Firewall"
    collection = "firewalls"
    links: ClassVar[Mapping[str, str]] = {"network": "networks"}
    simulated = frozenset(
        {
            *("name", "description", "project", "network", "direction", "priority", "disabled"),
            *("target_tags", "source_ranges", "allow.protocol", "allow.ports"),
        }
    )
    replaced_by = frozenset({"name", "project", "network", "direction"})

    def body(self, compute: Compute, values: Values) -> Answer:
        allowed = [
            {"IPProtocol": rule["protocol"]} | ({"ports": rule["ports"]} if rule["ports"] else {})
            for rule in values["allow"]
        ]
        # Said also when it is the API's own, as the real one does.
        priority = {"priority": 1000} if values.get("priority") is None else {}
        return super().body(compute, values) | priority | {"allowed": allowed}

    def known(self, project: str, answer: Answer) -> Values:
        made = super().known(project, answer)
        for name, rules in (("allow", "allowed"), ("deny", "denied")):
            made[name] = [
                {"protocol": rule["IPProtocol"], "ports": rule.get("ports", [])}
                for rule in answer.get(rules, [])
            ]
        if made.get("priority") == 1000:
            del made["priority"]
        return made


def read_subnetwork(compute: Compute, config: Values) -> Values:
    """The data source. Raises Refused."""
    if (link := config.get("self_link")) is not None:
        place = path(link)
    else:
        project = config.get("project") or compute.project
        place = f"projects/{project}/regions/{config['region']}/subnetworks/{config['name']}"
    try:
        answer = compute.get(place)
    except Refused as refused:
        if refused.status == 404:
            raise Refused(f"{place} not found") from refused
        raise Refused(f"Error when reading or editing {place}: {refused}") from refused
    return Subnetwork().known(place.split("/")[1], answer)


def full(name: str, collection: str) -> str:
    """The path of a resource by its name, or by a part of its path."""
    if "projects/" in name:
        return path(name)
    if "/" in name:
        return f"{'/'.join(collection.split('/')[:2])}/{name}"
    return f"{collection}/{name}"


def base(link: str) -> str:
    return link.rsplit("/", 1)[-1]


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def snake(name: str) -> str:
    return re.sub("(?<=[a-z0-9])([A-Z])", lambda found: f"_{found.group(1).lower()}", name).lower()


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
