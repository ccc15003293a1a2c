"""The API over HTTP: each request checked, struck by faults, answered, and its answer checked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from aiohttp import web

from . import catalog
from .calls import Call
from .discovery import ROOT, Discovery, Method
from .errors import Error
from .faults import Fault, Faults
from .images import Images
from .insertion import Insertion
from .instances import Instances, instance_id
from .listing import Items, aggregated, listed
from .networks import Networks
from .operations import Operations
from .resources import Place, Resource, Resources

Handler = Callable[[Call], Resource]
_KINDS = {
    "instances": "instance",
    "disks": "disk",
    "machineTypes": "machineType",
    "images": "image",
    "networks": "network",
    "subnetworks": "subnetwork",
    "firewalls": "firewall",
    "zones": "zone",
    "regions": "region",
    "zoneOperations": "operation",
    "regionOperations": "operation",
    "globalOperations": "operation",
}
"""What can be got and listed, and the API's name of one."""
_AGGREGATED = ("instances", "disks", "machineTypes", "subnetworks")
_WAITS = frozenset(f"{kind}Operations.wait" for kind in ("zone", "region", "global"))
_MESSAGES = {
    "quotaExceeded": "Quota 'CPUS' exceeded.  Limit: 24.0 in region {region}.",
    "rateLimitExceeded": "Quota exceeded for quota group 'default' and limit 'Queries per 100 "
    "seconds' of service 'compute.googleapis.com' for consumer 'project_number:1'.",
    "backendError": "Backend Error. Try again.",
    "internalError": "Internal Error. Please try again or contact Google Support.",
}
_log = logging.getLogger("compute.api")


@dataclass
class Api:
    """`malformed` tells of answers of our own that the document does not allow; `console` gives
    what an instance (`<zone>/<name>`) has written."""

    discovery: Discovery
    faults: Faults = field(default_factory=Faults)
    calls: Counter[str] = field(default_factory=Counter)
    malformed: list[str] = field(default_factory=list)
    console: Callable[[str], str] = lambda _: ""

    def __post_init__(self) -> None:
        self.resources = Resources()
        catalog.fill(self.resources)
        self.operations = Operations(self.resources, broken=self.malformed)
        self._networks = Networks(self.resources, self.operations)
        self._images = Images(self.resources, self.operations)
        insertion = Insertion(self.resources, self._networks, self._images)
        self.instances = Instances(self.resources, self.operations, insertion)
        self._handlers = self._all_handlers()
        self.emulated = frozenset(self._handlers) | _WAITS

    def _all_handlers(self) -> Mapping[str, Handler]:
        networks, images, instances = self._networks, self._images, self.instances
        found: dict[str, Handler] = {
            "projects.get": self._project,
            "instances.insert": instances.insert,
            "instances.delete": instances.delete,
            "instances.stop": instances.stop,
            "instances.setLabels": instances.set_labels,
            "instances.setMetadata": instances.set_metadata,
            "instances.getSerialPortOutput": self._serial_port,
            "instances.getGuestAttributes": instances.guest_attributes,
            "disks.delete": instances.delete_disk,
            "networks.insert": networks.insert_network,
            "networks.delete": networks.delete,
            "subnetworks.insert": networks.insert_subnetwork,
            "subnetworks.delete": networks.delete,
            "firewalls.insert": networks.insert_firewall,
            "firewalls.delete": networks.delete,
            "firewalls.patch": networks.patch_firewall,
            "images.insert": images.insert,
            "images.delete": images.delete,
            "images.getFromFamily": images.from_family,
        }
        for kind in _KINDS:
            found[f"{kind}.get"] = self._get
            found[f"{kind}.list"] = self._list
        for kind in _AGGREGATED:
            found[f"{kind}.aggregatedList"] = self._aggregated_list
        return found

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A call of a client, which faults may strike."""
        return await self._handle(request, Faults() if request.app.get(QUIET) else self.faults)

    async def _handle(self, request: web.Request, faults: Faults) -> web.StreamResponse:
        counted = faults is self.faults
        try:
            method, call = await self._call(request)
            if counted:
                self.calls[call.action] += 1
            call.struck = faults.of(call.target)
            await asyncio.sleep(call.struck.delay("delay"))
            if fault := call.struck.get("error"):
                raise _ordered(fault, call)
            _check_reach(call)
            if call.struck.get("twice"):
                with contextlib.suppress(Error):
                    await self._carry_out(method, call)
            answer = await self._carry_out(method, call)
        except Error as error:
            _log.info("%s %s: %s: %s", request.method, request.path, error.reason, error)
            return web.json_response(error.body(), status=error.status)
        if call.struck.get("malformed"):
            answer = {**answer, "madeUp": True}
        if wrong := self.discovery.faults_of_answer(method, answer):
            self.malformed.append(f"{call.action}: {'; '.join(wrong)}")
            own = Error("internalError", f"the emulation's own fault: {self.malformed[-1]}")
            _log.error("%s", own)
            return web.json_response(own.body(), status=own.status)
        if call.struck.get("lost-response"):
            return _drop(request)
        return web.Response(body=json.dumps(answer).encode(), content_type="application/json")

    async def _call(self, request: web.Request) -> tuple[Method, Call]:
        """Raises Error when the request does not fit the document."""
        path = request.rel_url.raw_path
        if not path.startswith(ROOT):
            raise Error("notFound", f"There is no {request.method} {path}")
        method, parameters = self.discovery.find(request.method, path.removeprefix(ROOT))
        if method.name not in self.emulated:
            raise Error("notImplemented", f"{method.name} is not emulated")
        query = self.discovery.query(method, list(request.query.items()))
        body = self.discovery.body(method, await request.read())
        call = Call(method.name, parameters, query, body)
        if "project" in parameters:
            self.resources.get(Place(call.project, "", "", ""))
        return method, call

    async def _carry_out(self, method: Method, call: Call) -> Resource:
        """Raises Error."""
        if method.name in _WAITS:
            return await self.operations.wait(call.place("operations", call.path["operation"]))
        handler = self._handlers[call.action]
        if "requestId" not in call.query:
            return handler(call)
        request = (call.action, *call.path.values(), _checked(call.query["requestId"]))
        earlier = self.operations.earlier(request, call.body)
        if earlier is None:
            earlier = handler(call)
            self.operations.remember(request, call.body, earlier)
        return earlier

    def _get(self, call: Call) -> Resource:
        kind, one = _kinds(call)
        place = call.place(kind, call.path[one])
        return self._shown(place, self.resources.get(place))

    def _list(self, call: Call) -> Resource:
        kind, one = _kinds(call)
        place = call.place(kind)
        found = self._found(call, kind, place.scope)
        items = [(where, self._shown(where, resource)) for where, resource in found]
        return listed(one, place, items, call.query)

    def _aggregated_list(self, call: Call) -> Resource:
        kind, one = _kinds(call)
        regional = kind == "subnetworks"
        scopes = [f"regions/{name}" for name in catalog.REGIONS] if regional else []
        scopes += [] if regional else [f"zones/{name}" for name in catalog.ZONES]
        gone = [scope for fault in call.struck.all("unreachable") for scope in _scopes(fault)]
        items = self._found(call, kind)
        place = Place(call.project, "", kind)
        return aggregated(one, place, items, call.query, scopes=scopes, unreachable=gone)

    def _found(self, call: Call, kind: str, scope: str = "") -> Items:
        """What is to be listed; of instances what was ordered, whether it is so or not."""
        items: Items = self.resources.each(kind, call.project, scope)
        if kind != "instances":
            return items
        if call.struck.get("stale"):
            items = self.instances.history.before(call.struck.delay("stale"), call.project, scope)
        lacking = [fault.instance for fault in call.struck.all("incomplete")]
        return [item for item in items if not _matches(instance_id(item[0]), lacking)]

    def _shown(self, place: Place, resource: Resource) -> Resource:
        if place.kind == "zones":
            return catalog.shown_zone(resource)
        if place.kind == "regions":
            return catalog.shown_region(self.resources, resource)
        return self._networks.shown(place, resource) if place.kind == "networks" else resource

    def _project(self, call: Call) -> Resource:
        found = self.resources.get(Place(call.project, "", "", ""))
        return {**found, "name": call.project, "defaultNetworkTier": "PREMIUM"}

    def _serial_port(self, call: Call) -> Resource:
        name = f"{call.path['zone']}/{call.path['instance']}"
        return self.instances.serial_port(call, self.console(name))


QUIET: web.AppKey[bool] = web.AppKey("quiet", bool)
"""Of an application past faults and counting."""


def _kinds(call: Call) -> tuple[str, str]:
    """What a call gets or lists, and the API's name of one."""
    kind = call.action.partition(".")[0]
    one = _KINDS[kind]
    return ("operations" if one == "operation" else kind), one


def _scopes(fault: Fault) -> list[str]:
    """What cannot be reached: a zone, or a region with all its zones."""
    found = [f"zones/{fault.zone}"] if fault.zone else []
    if fault.region:
        found += [f"regions/{fault.region}"]
        found += [f"zones/{zone}" for zone in catalog.ZONES if zone.startswith(f"{fault.region}-")]
    return found


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_reach(call: Call) -> None:
    """Raises Error when the zone or region that is called is out of reach."""
    for fault in call.struck.all("unreachable"):
        if call.scope in _scopes(fault):
            raise Error("backendError", f"The scope '{call.scope}' is unreachable.")


def _ordered(fault: Fault, call: Call) -> Error:
    text = fault.message or _MESSAGES.get(fault.code, f"{fault.code}, as ordered")
    return Error(fault.code, text.format(region=call.target.region), fault.status)


def _checked(request_id: str) -> str:
    """Raises Error for what is no UUID, and for the one of zeros."""
    try:
        number = uuid.UUID(request_id).int
    except ValueError:
        number = 0
    if not number:
        text = f"Invalid value for field 'requestId': '{request_id}'. It must be a valid UUID."
        raise Error("invalid", text)
    return request_id


def _drop(request: web.Request) -> web.StreamResponse:
    """Cut the client off without an answer."""
    if request.transport:
        request.transport.abort()
    return web.Response()
