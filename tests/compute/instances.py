"""The life of instances, each with a host of its own from its running to its end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from emulation.hosts import Hosts, Launched, Trouble

from . import errors
from .calls import Call, market
from .errors import Error, OperationError
from .faults import Struck
from .history import History
from .insertion import USER_DATA, Insertion, check_labels, checked_metadata
from .operations import SYSTEM, Operations
from .resources import Place, Resource, Resources, fingerprint, moment, region_of

_INSERT_SECONDS = 0.1
"""From an operation's running to the instance's."""
_DELETE_SECONDS = 0.05
_GUEST_ATTRIBUTES = "enable-guest-attributes"
_HOST_KEYS = "hostkeys"
"""A namespace of guest attributes."""
_CANCELLED = "OPERATION_CANCELED_BY_USER"
_ENDS = {"preempted": "compute.instances.preempted", "expired": "delete"}
"""The operation that tells of an end by the cloud itself."""


@dataclass
class _Life:
    place: Place
    resource: Resource
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    """It is to be deleted, or stopped."""
    stays: float = 0.0
    """Until that moment (the loop's time) it is not gone, whatever is asked."""

    @property
    def instance_id(self) -> str:
        return instance_id(self.place)


@dataclass
class Instances:
    resources: Resources
    operations: Operations
    insertion: Insertion
    hosts: Hosts = field(init=False)
    history: History = field(default_factory=History)
    _lives: dict[Place, _Life] = field(default_factory=dict)

    def insert(self, call: Call) -> Resource:
        place = call.place("instances", call.body["name"])
        content, disk = self.insertion.content(call)
        made = self.resources.add(place, "instance", content)
        disk_place = call.place("disks", disk["name"])
        try:
            self.resources.add(disk_place, "disk", disk)
        except Error:
            self.resources.remove(place)
            raise
        life = self._lives[place] = _Life(place, made)
        self._change(life)

        async def begin() -> None:
            try:
                await self._begin(life, call)
            except OperationError:
                # A deletion that is under way has it already.
                if not life.ending.is_set():
                    self._forget(life)
                raise

        return self.operations.begin("insert", place, begin)

    async def _begin(self, life: _Life, call: Call) -> None:
        """Until it runs. Raises OperationError when that was ordered, or it is deleted before."""
        self._change(life, status="STAGING")
        if await _within(life.ending, _INSERT_SECONDS + call.struck.delay("slow")):
            raise OperationError(_CANCELLED, "The operation was cancelled: the instance is deleted")
        if fault := call.struck.get("operation-error"):
            raise _ordered(call, fault.code, fault.message)
        self._change(life, status="RUNNING", lastStartTimestamp=moment())
        self.hosts.launch(self._launched(life), _trouble(call.struck))
        self._schedule_end(life, call.struck)

    def _schedule_end(self, life: _Life, struck: Struck) -> None:
        """By the maximum run duration, or by what was ordered."""
        scheduling = life.resource["scheduling"]
        limit = scheduling.get("maxRunDuration")
        if fault := struck.get("preempted"):
            self.operations.spawn(self._end_after(life, fault.delay, "preempted"))
        if limit is None:
            return
        ordered = struck.get("expires")
        seconds = ordered.delay if ordered else float(limit["seconds"])
        at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
        life.resource["resourceStatus"]["scheduling"]["terminationTimestamp"] = moment(at)
        self.operations.spawn(self._end_after(life, seconds, "expired"))

    async def _end_after(
        self, life: _Life, seconds: float, why: Literal["preempted", "expired"]
    ) -> None:
        if not await _within(life.ending, seconds):
            self.take_back(life.instance_id, why)

    def take_back(self, of: str, why: Literal["preempted", "expired"]) -> None:
        """By the cloud itself: what becomes of it is its own attribute. Gone is success."""
        life = self._life(of)
        if life is None or life.ending.is_set():
            return
        action = life.resource["scheduling"].get("instanceTerminationAction", "STOP")
        end = self._remove if action == "DELETE" else self._stop
        self.operations.begin(_ENDS[why], life.place, lambda: end(life), user=SYSTEM)

    def delete(self, call: Call) -> Resource:
        place = self._place(call)
        life = self._lives[place]
        if life.resource["deletionProtection"]:
            text = f"Resource '{place.path}' cannot be deleted: it is protected against deletion."
            raise Error("invalid", f"Invalid resource usage: '{text}'.")

        async def end() -> None:
            await asyncio.sleep(call.struck.delay("slow"))
            if fault := call.struck.get("operation-error"):
                raise _ordered(call, fault.code, fault.message)
            ordered = call.struck.all("undying")
            undying = [f.delay for f in ordered if fnmatchcase(life.instance_id, f.instance)]
            await self._remove(life, sum(undying))

        return self.operations.begin("delete", place, end)

    def delete_by_others(self, of: str) -> None:
        """As if by somebody else. Gone is success."""
        if life := self._life(of):
            self.operations.begin("delete", life.place, lambda: self._remove(life))

    def stop(self, call: Call) -> Resource:
        life = self._lives[self._place(call)]
        return self.operations.begin("stop", life.place, lambda: self._stop(life))

    async def powered_off(self, instance: Launched) -> None:
        """The host has shut itself down: the instance is stopped, whatever its attributes say."""
        if (life := self._life(instance.instance_id)) and not life.ending.is_set():
            kind = "compute.instances.guestTerminate"
            self.operations.begin(kind, life.place, lambda: self._stop(life), user=SYSTEM)

    async def _remove(self, life: _Life, seconds: float = 0.0) -> None:
        if self._lives.get(life.place) is not life:
            return  # somebody else was quicker
        life.ending.set()
        self._change(life, status="STOPPING")
        now = asyncio.get_running_loop().time()
        life.stays = max(life.stays, now + _DELETE_SECONDS + seconds)
        await asyncio.sleep(life.stays - now)
        await self.hosts.end([life.instance_id])
        self._forget(life)

    async def _stop(self, life: _Life) -> None:
        if self._lives.get(life.place) is not life:
            return
        life.ending.set()
        self._change(life, status="STOPPING")
        await self.hosts.end([life.instance_id])
        # The limit of its run time counts from the next start.
        life.resource["resourceStatus"]["scheduling"].pop("terminationTimestamp", None)
        self._change(life, status="TERMINATED", lastStopTimestamp=moment())

    def _forget(self, life: _Life) -> None:
        if self._lives.get(life.place) is not life:
            return
        del self._lives[life.place]
        self.resources.remove(life.place)
        self.history.note(life.place, None)
        for attached in life.resource["disks"]:
            name = attached["source"].rpartition("/")[2]
            disk = life.place._replace(kind="disks", name=name)
            if attached["autoDelete"]:
                self.resources.remove(disk)
            elif resource := self.resources.find(disk):
                resource["users"] = []

    def _change(self, life: _Life, **fields: Any) -> None:
        life.resource |= fields
        self.history.note(life.place, life.resource)

    def delete_disk(self, call: Call) -> Resource:
        place = call.place("disks", call.path["disk"])
        disk = self.resources.get(place)
        if disk["users"]:
            user = disk["users"][0].partition("/v1/")[2]
            text = f"The disk resource '{place.path}' is already being used by '{user}'"
            raise Error("resourceInUseByAnotherResource", text)

        async def remove() -> None:
            self.resources.remove(place)

        return self.operations.begin("delete", place, remove)

    def set_labels(self, call: Call) -> Resource:
        life = self._lives[self._place(call)]
        given = call.body.get("labelFingerprint")
        _check_fingerprint("labels", given, life.resource["labelFingerprint"])
        labels = call.body.get("labels", {})
        check_labels("labels", labels)

        async def change() -> None:
            self._change(life, labels=labels, labelFingerprint=fingerprint(labels))

        return self.operations.begin("setLabels", life.place, change)

    def set_metadata(self, call: Call) -> Resource:
        """Hosts go on to see what they were made with."""
        life = self._lives[self._place(call)]
        metadata = life.resource["metadata"]
        _check_fingerprint("metadata", call.body.get("fingerprint"), metadata["fingerprint"])
        items = checked_metadata(list(call.body.get("items") or ()))

        async def change() -> None:
            metadata.update({"items": items, "fingerprint": fingerprint(items)})

        return self.operations.begin("setMetadata", life.place, change)

    def serial_port(self, call: Call, console: str) -> Resource:
        place = self._place(call)
        start = min(int(call.query.get("start", 0)), len(console))
        return {
            "kind": "compute#serialPortOutput",
            "selfLink": f"{place.link}/serialPort",
            "contents": console[start:],
            "start": str(start),
            "next": str(len(console)),
        }

    def guest_attributes(self, call: Call) -> Resource:
        """Only what cloud-init puts there: the host keys, by their kind. None is 404."""
        of = instance_id(self._place(call))
        life = self._life(of)
        items = life.resource["metadata"].get("items", ()) if life else ()
        if not any(item == {"key": _GUEST_ATTRIBUTES, "value": "TRUE"} for item in items):
            raise Error("conditionNotMet", "Guest attributes access is disabled for this instance.")
        wanted = call.query.get("queryPath", "")
        keys = dict(key.split()[:2] for key in self.hosts.host_keys(of))
        found = [
            {"namespace": _HOST_KEYS, "key": kind, "value": key}
            for kind, key in keys.items()
            if wanted in (f"{_HOST_KEYS}/", f"{_HOST_KEYS}/{kind}")
        ]
        if not found:
            raise Error(
                "notFound", f"The resource '{wanted}' of type 'Guest Attribute' was not found."
            )
        return {
            "kind": "compute#guestAttributes",
            "queryPath": wanted,
            "queryValue": {"items": found},
            "selfLink": f"{self._place(call).link}/guestAttributes/{wanted}",
        }

    def _launched(self, life: _Life) -> Launched:
        place, resource = life.place, life.resource
        zone = place.scope.removeprefix("zones/")
        disk = place._replace(kind="disks", name=resource["disks"][0]["source"].rpartition("/")[2])
        items = resource["metadata"].get("items", ())
        told = {f"instance/attributes/{item['key']}": item.get("value", "") for item in items}
        return Launched(
            instance_id=life.instance_id,
            address=resource["networkInterfaces"][0]["networkIP"],
            image=self.resources.get(disk)["sourceImage"].rpartition("/")[2],
            instance_type=resource["machineType"].rpartition("/")[2],
            zone=zone,
            region=region_of(zone),
            market=market(resource),
            user_data=told.get(f"instance/attributes/{USER_DATA}", ""),
            hostname=place.name,
            attributes={
                **told,
                "instance/id": resource["id"],
                "instance/name": place.name,
                "project/project-id": place.project,
            },
        )

    def _place(self, call: Call) -> Place:
        place = call.place("instances", call.path["instance"])
        return place.of(self.resources.get(place)["name"])

    def _life(self, of: str) -> _Life | None:
        return next((life for life in self._lives.values() if life.instance_id == of), None)


def instance_id(place: Place) -> str:
    """As tango_cloud and the emulation's control call an instance: `<zone>/<name>`."""
    return f"{place.scope.removeprefix('zones/')}/{place.name}"


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether it is set within that time; returns as soon as it is."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def _ordered(call: Call, code: str, message: str) -> OperationError:
    if code.startswith("ZONE_RESOURCE_POOL_EXHAUSTED"):
        return errors.exhausted(call.project, call.path["zone"], code, message)
    if code == "QUOTA_EXCEEDED":
        return errors.over_quota(region_of(call.path["zone"]), message)
    return OperationError(code, message or f"{code}, as ordered")


def _trouble(struck: Struck) -> Trouble:
    return Trouble(
        delay=struck.delay("boot-delay"),
        boots=struck.get("no-boot") is None,
        ssh=struck.get("ssh-refused") is None,
        own_host_key=struck.get("wrong-host-key") is None,
    )


def _check_fingerprint(what: str, given: str | None, has: str) -> None:
    """Raises Error when the one who asks has not seen what there is."""
    if given is None:
        raise Error("required", f"Required field '{what} fingerprint' not specified")
    if given != has:
        text = f"Supplied fingerprint does not match current {what} fingerprint."
        raise Error("conditionNotMet", text)
