"""What clients talk to: passes everything on, counts it, and adds what the backend lacks.

Requests and answers are streamed, as they are, but for the few EC2 actions that are listed below.
"""

from __future__ import annotations

import asyncio
import logging
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from yarl import URL

from emulation import ec2
from emulation.ec2 import Backend, Error
from emulation.faults import Call, Fault, Faults
from emulation.hosts import Hosts, Launched, Trouble
from emulation.launches import Answer, Launches, check_tags, launched

_log = logging.getLogger("emulation.proxy")


@dataclass(frozen=True)
class Request:
    """One call. `form` is None for what is no form: it has not been read yet."""

    raw: web.Request
    region: str
    service: str
    action: str
    form: Mapping[str, str] | None


@dataclass
class Proxy:
    """Gives hosts to the instances that calls make, and takes them away when calls end them."""

    backend: Backend
    launches: Launches
    faults: Faults
    hosts: Hosts
    calls: Counter[str] = field(default_factory=Counter)
    _pending: dict[str, float] = field(default_factory=dict)
    """Until when (the loop's time) an instance is said to be pending."""
    _reasons: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Why an instance has been terminated, where it was not its user's wish."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def handle(self, raw: web.Request) -> web.StreamResponse:
        request = await _read(raw)
        name = f"{request.service}:{request.action}"
        self.calls[name] += 1
        handlers: Mapping[str, Callable[[Request], Awaitable[web.StreamResponse]]] = {
            "ec2:TerminateInstances": self._end_instances,
            "ec2:StopInstances": self._end_instances,
            "ec2:DescribeInstances": self._describe_instances,
            "ec2:DescribeNetworkInterfaces": self._describe_network_interfaces,
            "ec2:CreateTags": self._create_tags,
        }
        try:
            if name == "ec2:RunInstances":
                return await self._run_instances(request)
            lost = await self._strike(self.faults.of_call(Call(name)))
            answer = await handlers.get(name, self._forward)(request)
        except Error as error:
            return _failure(request, error)
        except (aiohttp.ClientError, ConnectionError) as error:
            return _failure(request, Error("Unavailable", f"the backend: {error!r}"))
        return _drop(raw) if lost else answer

    async def _strike(self, faults: list[Fault]) -> bool:
        """Wait, or raise Error, as ordered; whether the answer is to be lost."""
        for fault in faults:
            if fault.delay:
                await asyncio.sleep(fault.delay)
            if fault.effect == "error":
                raise Error(fault.code, fault.message or f"{fault.code}, as ordered")
        return any(fault.effect == "lost-response" for fault in faults)

    async def _run_instances(self, request: Request) -> web.StreamResponse:
        form = request.form or {}
        full, call = await self.launches.complete(request.region, form)
        lost = await self._strike(self.faults.of_call(call))
        await self.launches.check(request.region, form, call)
        answer = self.launches.answer(request.region, form)
        async with answer.lock:
            if not answer.instance_ids:
                await self._launch(request, full, call, answer)
        if not answer.body:
            raise Error(
                "IdempotentInstanceTerminated",
                "The request to launch an instance uses a client token of one that was terminated",
            )
        if lost:
            return _drop(request.raw)
        return _xml(answer.body)

    async def _launch(
        self, request: Request, full: Mapping[str, str], call: Call, answer: Answer
    ) -> None:
        """Have the backend make the instances; note its answer. Raises Error with its error."""
        status, body = await self.backend.post(request.raw.headers, full)
        root = ec2.tree(body)
        if status != 200:
            raise ec2.error_of(root)
        made = launched(root, request.region, full, call)
        for instance in made:
            await self._begin(instance, self.faults.of_launch(call))
        answer.body = body
        answer.instance_ids = tuple(instance.instance_id for instance in made)

    async def _begin(self, instance: Launched, faults: list[Fault]) -> None:
        """The first moments of an instance, with what was ordered for it."""
        effects = {fault.effect: fault for fault in faults}
        if fault := effects.get("terminated"):
            await self.terminate(instance, fault.code, fault.message or "as ordered")
            return
        pending = fault.delay if (fault := effects.get("pending")) else 0.0
        if pending:
            self._pending[instance.instance_id] = asyncio.get_running_loop().time() + pending
        boot = fault.delay if (fault := effects.get("boot-delay")) else 0.0
        trouble = Trouble(
            delay=pending + boot,
            boots="no-boot" not in effects,
            ssh="ssh-refused" not in effects,
            own_host_key="wrong-host-key" not in effects,
        )
        self.hosts.launch(instance, trouble)

    async def terminate(self, instance: Launched, code: str = "", message: str = "") -> None:
        """As the cloud itself does it; with a code, that is the state reason told from then on."""
        if code:
            self._reasons[instance.instance_id] = (code, message)
        await self.backend.ask(
            instance.region, "TerminateInstances", **{"InstanceId.1": instance.instance_id}
        )
        await self.ended({instance.instance_id})

    async def ended(self, instance_ids: set[str]) -> None:
        self.launches.forget_terminated(instance_ids)
        await self.hosts.end(instance_ids)

    async def _end_instances(self, request: Request) -> web.StreamResponse:
        status, body = await self.backend.post(request.raw.headers, request.form or {})
        if status == 200:
            items = ec2.tree(body).findall("instancesSet/item")
            ids = {ec2.text(item, "instanceId") for item in items}
            stopped = request.action == "StopInstances"
            # The cloud does not wait for it either.
            task = asyncio.create_task(self.hosts.end(ids) if stopped else self.ended(ids))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return _xml(body, status)

    async def _describe_instances(self, request: Request) -> web.StreamResponse:
        now = asyncio.get_running_loop().time()
        for instance_id in [key for key, until in self._pending.items() if until <= now]:
            del self._pending[instance_id]
        if not (self._pending or self._reasons):
            return await self._forward(request)
        status, body = await self.backend.post(request.raw.headers, request.form or {})
        if status == 200:
            body = self._corrected(body)
        return _xml(body, status)

    def _corrected(self, body: bytes) -> bytes:
        root = ec2.tree(body)
        for item in root.iterfind(".//instancesSet/item"):
            instance_id = ec2.text(item, "instanceId")
            if instance_id in self._pending and ec2.text(item, "instanceState/name") == "running":
                _set(item, "instanceState/code", "0")
                _set(item, "instanceState/name", "pending")
            if instance_id in self._reasons:
                code, message = self._reasons[instance_id]
                _set(item, "stateReason/code", code)
                _set(item, "stateReason/message", f"{code}: {message}")
        return _document(root)

    async def _describe_network_interfaces(self, request: Request) -> web.StreamResponse:
        """By their status too, which the backend has no filter for."""
        form, wanted = ec2.filter_values(request.form or {}, "status")
        if not wanted:
            return await self._forward(request)
        status, body = await self.backend.post(request.raw.headers, form)
        if status == 200:
            root = ec2.tree(body)
            for found in root.findall("networkInterfaceSet"):
                for item in found.findall("item"):
                    if ec2.text(item, "status") not in wanted:
                        found.remove(item)
            body = _document(root)
        return _xml(body, status)

    async def _create_tags(self, request: Request) -> web.StreamResponse:
        check_tags(request.form or {})
        return await self._forward(request)

    async def _forward(self, request: Request) -> web.StreamResponse:
        raw = request.raw
        async with self.backend.client.request(
            raw.method,
            URL(self.backend.url + raw.raw_path, encoded=True),
            headers=ec2.passed_on(raw.headers, raw.headers.get("Content-Length")),
            data=raw.content.iter_any() if request.form is None else await raw.read(),
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as answer:
            response = web.StreamResponse(
                status=answer.status, headers=ec2.passed_on(answer.headers)
            )
            response.content_length = answer.content_length
            await response.prepare(raw)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


async def _read(raw: web.Request) -> Request:
    """Nothing but a form is read: a body of any other kind may be of any size."""
    region, service = ec2.scope(raw.headers.get("Authorization", ""))
    target = raw.headers.get("X-Amz-Target", "")
    form = None
    if raw.content_type == "application/x-www-form-urlencoded" and service != "s3":
        form = ec2.parameters(await raw.read())
    action = (form or {}).get("Action") or target.rpartition(".")[2]
    if service == "s3":
        action = _s3_action(raw)
    return Request(raw, region, service or "unknown", action or raw.method, form)


def _s3_action(raw: web.Request) -> str:
    """Near enough: sub-resources (`?versioning`) are called by their names."""
    if "list-type" in raw.query:
        return "ListObjectsV2"
    bare = [name for name, value in raw.query.items() if not value]
    kind = "Object" if raw.path.strip("/").count("/") else "Bucket"
    return raw.method.title() + (bare[0].title() if bare else kind)


def _drop(raw: web.Request) -> web.StreamResponse:
    """Cut the client off without an answer."""
    if raw.transport:
        raw.transport.abort()
    return web.Response()


def _failure(request: Request, error: Error) -> web.Response:
    _log.info("%s:%s: %s: %s", request.service, request.action, error.code, error)
    return web.Response(
        status=error.status, body=error.body(request.service), content_type="text/xml"
    )


def _set(item: ET.Element, path: str, value: str) -> None:
    for name in path.split("/"):
        found = item.find(name)
        item = found if found is not None else ET.SubElement(item, name)
    item.text = value


def _document(root: ET.Element) -> bytes:
    root.set("xmlns", ec2.NAMESPACE)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _xml(body: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=body, content_type="text/xml", charset="utf-8")
