"""Networks, subnetworks and firewall rules. Nothing is filtered: hosts are open to this machine."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .calls import Call
from .errors import Error, OperationError
from .operations import Operations
from .resources import Place, Resource, Resources, fingerprint, place_of

_SECONDS = 0.02
_KINDS = {"networks": "network", "subnetworks": "subnetwork", "firewalls": "firewall"}
_TAG = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_RESERVED = 4
"""Addresses at either end of a subnetwork that no instance gets. Google keeps two at each; the
first three of the emulation's own network are this machine's and the router's."""


@dataclass
class Networks:
    resources: Resources
    operations: Operations

    def insert_network(self, call: Call) -> Resource:
        if call.body.get("autoCreateSubnetworks", True):
            raise Error("notImplemented", "only networks in custom mode are emulated")
        content = {
            "routingConfig": {"routingMode": "REGIONAL"},
            "networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL",
            **call.body,
        }
        return self._insert(call, "networks", content)

    def insert_subnetwork(self, call: Call) -> Resource:
        network = self._network(call, call.body.get("network"))
        cidr = _cidr("ipCidrRange", call.body.get("ipCidrRange", ""))
        for other, taken in self.resources.each("subnetworks", call.project):
            if taken["network"] == network.link and cidr.overlaps(_network_of(taken)):
                text = f"IP range {cidr} conflicts with {taken['ipCidrRange']} of {other.name}."
                raise Error("invalid", f"Invalid IPCidrRange: {text}")
        region = call.path["region"]
        content = {
            "privateIpGoogleAccess": False,
            "stackType": "IPV4_ONLY",
            "purpose": "PRIVATE",
            **call.body,
            "network": network.link,
            "region": Place(call.project, "", "regions", region).link,
            "gatewayAddress": str(cidr[1]),
            "fingerprint": fingerprint(call.body),
        }
        return self._insert(call, "subnetworks", content)

    def insert_firewall(self, call: Call) -> Resource:
        content = {
            "direction": "INGRESS",
            "priority": 1000,
            "disabled": False,
            "logConfig": {"enable": False},
            **call.body,
            "network": self._network(call, call.body.get("network")).link,
        }
        _check_firewall(content)
        return self._insert(call, "firewalls", content)

    def patch_firewall(self, call: Call) -> Resource:
        place = call.place("firewalls", call.path["firewall"])
        firewall = self.resources.get(place)
        changed = {**firewall, **call.body}
        _check_firewall(changed)

        async def change() -> None:
            await self._pass_time(call)
            firewall.update(call.body)

        return self.operations.begin("patch", place, change)

    def delete(self, call: Call) -> Resource:
        kind = call.action.partition(".")[0]
        place = call.place(kind, call.path[_KINDS[kind]])
        user = self._user(place, self.resources.get(place))
        if user:
            text = f"The {_KINDS[kind]} resource '{place.path}' is already being used by '{user}'"
            raise Error("resourceInUseByAnotherResource", text)

        async def remove() -> None:
            await self._pass_time(call)
            self.resources.remove(place)

        return self.operations.begin("delete", place, remove)

    def shown(self, place: Place, network: Resource) -> Resource:
        """With its subnetworks."""
        found = [
            other.link
            for other, subnetwork in self.resources.each("subnetworks", place.project)
            if subnetwork["network"] == network["selfLink"]
        ]
        return {**network, "subnetworks": found} if found else network

    def address(self, subnetwork: Place, wanted: str, field_name: str) -> str:
        """One that no instance in the subnetwork has. Raises Error."""
        resource = self.resources.get(subnetwork)
        cidr = _network_of(resource)
        taken = {
            interface["networkIP"]
            for _, instance in self.resources.each("instances", subnetwork.project)
            for interface in instance["networkInterfaces"]
            if interface["subnetwork"] == resource["selfLink"]
        }
        if wanted:
            if wanted in taken or ipaddress.IPv4Address(wanted) not in cidr:
                text = f"Invalid value for field '{field_name}': '{wanted}'. IP is not free."
                raise Error("invalid", text)
            return wanted
        # Not the lowest: an address comes again only when all others have had their turn.
        first, size = _RESERVED, cidr.num_addresses - 2 * _RESERVED
        turn = self._turns.get(subnetwork, 0)
        for step in range(size):
            address = str(cidr[first + (turn + step) % size])
            if address not in taken:
                self._turns[subnetwork] = (turn + step + 1) % size
                return address
        raise Error("IP_SPACE_EXHAUSTED", f"IP space of '{resource['selfLink']}' is exhausted.")

    def __post_init__(self) -> None:
        self._turns: dict[Place, int] = {}

    def _insert(self, call: Call, kind: str, content: Mapping[str, Any]) -> Resource:
        place = call.place(kind, call.body["name"])
        self.resources.add(place, _KINDS[kind], content)

        async def make() -> None:
            try:
                await self._pass_time(call)
            except OperationError:
                self.resources.remove(place)
                raise

        return self.operations.begin("insert", place, make)

    async def _pass_time(self, call: Call) -> None:
        """Raises OperationError when that was ordered."""
        await asyncio.sleep(_SECONDS + call.struck.delay("slow"))
        if fault := call.struck.get("operation-error"):
            raise OperationError(fault.code, fault.message or f"{fault.code}, as ordered")

    def _network(self, call: Call, link: str | None) -> Place:
        place = place_of(link or "global/networks/default", call.project, "resource.network")
        self.resources.get(place)
        return place

    def _user(self, place: Place, resource: Resource) -> str:
        """Who uses it; empty: nobody."""
        link = resource["selfLink"]
        users = [
            *self.resources.each("subnetworks", place.project),
            *self.resources.each("firewalls", place.project),
        ]
        for other, user in users:
            if user["network"] == link:
                return other.path
        for other, instance in self.resources.each("instances", place.project):
            for interface in instance["networkInterfaces"]:
                if link in {interface["network"], interface["subnetwork"]}:
                    return other.path
        return ""


def _check_firewall(firewall: Mapping[str, Any]) -> None:
    """Raises Error for what no rule can be."""
    if bool(firewall.get("allowed")) is bool(firewall.get("denied")):
        raise Error("invalid", "A firewall rule has either allowed or denied.")
    for name in ("sourceRanges", "destinationRanges"):
        for text in firewall.get(name, ()):
            _cidr(name, text)
    for name in ("sourceTags", "targetTags"):
        for tag in firewall.get(name, ()):
            if not _TAG.fullmatch(tag):
                raise Error("invalid", f"Invalid value for field 'resource.{name}': '{tag}'.")


def _cidr(name: str, text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        message = f"Invalid value for field 'resource.{name}': '{text}'. {error}"
        raise Error("invalid", message) from error


def _network_of(subnetwork: Resource) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(subnetwork["ipCidrRange"])
