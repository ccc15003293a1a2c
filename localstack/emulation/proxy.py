"""What clients talk to: passes everything on, counts it, and adds what the backend lacks.

Requests and answers are streamed, as they are, but for the few EC2 actions that are listed below.
"""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace

import aiohttp
from aiohttp import web
from yarl import URL

from emulation import ec2
from emulation.ec2 import Backend, Error
from emulation.faults import Call, Effect, Fault, Faults
from emulation.hosts import Hosts, Launched, Trouble
from emulation.images import create_image
from emulation.launches import Answer, Launches, check_tags, launched
from emulation.listing import Listing, shutting_down

_log = logging.getLogger("emulation.proxy")


@dataclass(frozen=True)
class Request:
    """One call, and the faults that strike it. `form` is None for what is no form: it has not been
    read yet."""

    raw: web.Request
    region: str
    service: str
    action: str
    form: Mapping[str, str] | None
    struck: Sequence[Fault] = ()

    def suffers(self, effect: Effect) -> bool:
        return any(fault.effect == effect for fault in self.struck)


class _Unreachable(Exception):
    """The call is not to arrive."""


@dataclass
class Proxy:
    """Gives hosts to the instances that calls make, and takes them away when calls end them."""

    backend: Backend
    launches: Launches
    listing: Listing
    faults: Faults
    hosts: Hosts
    calls: Counter[str] = field(default_factory=Counter)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def handle(self, raw: web.Request) -> web.StreamResponse:
        request = await _read(raw)
        name = f"{request.service}:{request.action}"
        self.calls[name] += 1
        handlers: Mapping[str, Callable[[Request], Awaitable[web.StreamResponse]]] = {
            "ec2:TerminateInstances": self._terminate_instances,
            "ec2:StopInstances": self._stop_instances,
            "ec2:DescribeInstances": self._describe_instances,
            "ec2:DescribeNetworkInterfaces": self._describe_network_interfaces,
            "ec2:CreateTags": self._create_tags,
            "ec2:CreateImage": self._create_image,
        }
        try:
            if name == "ec2:RunInstances":
                return await self._run_instances(request)
            call = Call(name, listing=not ec2.items(request.form or {}, "InstanceId"))
            request = replace(request, struck=await self._strike(call))
            if request.suffers("twice"):
                await handlers.get(name, self._ask)(request)
            answer = await handlers.get(name, self._forward)(request)
        except _Unreachable:
            return _drop(raw)
        except Error as error:
            return _failure(request, error)
        except (aiohttp.ClientError, ConnectionError) as error:
            return _failure(request, Error("Unavailable", f"the backend: {error!r}"))
        return _drop(raw) if request.suffers("lost-response") else answer

    async def _strike(self, call: Call) -> Sequence[Fault]:
        """What strikes a call that is carried out; before that wait, as ordered. Raises Error, or
        _Unreachable, when it is not."""
        struck = self.faults.of_call(call)
        for fault in struck:
            if fault.effect == "delay":
                await asyncio.sleep(fault.delay)
            if fault.effect == "unreachable":
                raise _Unreachable
            if fault.effect == "error":
                raise Error(fault.code, fault.message or f"{fault.code}, as ordered")
        return struck

    async def _run_instances(self, request: Request) -> web.StreamResponse:
        full, call = await self.launches.complete(request.region, request.form or {})
        request = replace(request, struck=await self._strike(call))
        await self.launches.check(request.region, full, call)
        body = b""
        for _ in range(2 if request.suffers("twice") else 1):
            body = await self._launched(request, full, call)
        return _drop(request.raw) if request.suffers("lost-response") else _xml(200, body)

    async def _launched(self, request: Request, full: Mapping[str, str], call: Call) -> bytes:
        """The answer to RunInstances. Raises Error."""
        answer = self.launches.answer(request.region, request.form or {})
        async with answer.lock:
            if not answer.instance_ids:
                await self._launch(request, full, call, answer)
        if not answer.body:
            raise Error(
                "IdempotentInstanceTerminated",
                "The request to launch an instance uses a client token of one that was terminated",
            )
        return answer.body

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
        self.listing.made(instance.instance_id, pending)
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
            self.listing.explain(instance.instance_id, code, message)
        await self._end(instance.region, instance.instance_id)

    async def _end(self, region: str, instance_id: str) -> None:
        await self.backend.ask(region, "TerminateInstances", **{"InstanceId.1": instance_id})
        await self.ended({instance_id})

    async def ended(self, instance_ids: set[str]) -> None:
        self.listing.ended(instance_ids)
        self.launches.forget_terminated(instance_ids)
        await self.hosts.end(instance_ids)

    async def _terminate_instances(self, request: Request) -> web.StreamResponse:
        """Those that are undying go later, and whoever asks again makes nothing quicker."""
        form = request.form or {}
        ids = ec2.items(form, "InstanceId")
        for fault in request.struck:
            if fault.effect == "undying":
                for instance_id in fnmatch.filter(ids, fault.instance):
                    if self.listing.shut_down(instance_id):
                        self._spawn(self._end_after(fault.delay, request.region, instance_id))
        held = [one for one in ids if self.listing.shutting_down(one)]
        root = ET.Element("TerminateInstancesResponse")
        if len(held) < len(ids):
            rest = {k: v for k, v in form.items() if not k.startswith("InstanceId.")}
            rest |= ec2.numbered("InstanceId", [one for one in ids if one not in held])
            status, body = await self.backend.post(request.raw.headers, rest)
            root = ec2.tree(body)
            if status != 200:
                raise ec2.error_of(root)
            # The cloud does not wait for it either.
            self._spawn(self.ended(_named(root)))
        ended = root.find("instancesSet")
        if ended is None:
            ended = ET.SubElement(root, "instancesSet")
        ended.extend(shutting_down(held))
        return _xml(200, ec2.document(root))

    async def _end_after(self, seconds: float, region: str, instance_id: str) -> None:
        await asyncio.sleep(seconds)
        await self._end(region, instance_id)

    async def _stop_instances(self, request: Request) -> web.StreamResponse:
        status, body = await self.backend.post(request.raw.headers, request.form or {})
        if status == 200:
            self._spawn(self.hosts.end(_named(ec2.tree(body))))
        return _xml(status, body)

    async def _describe_instances(self, request: Request) -> web.StreamResponse:
        if self.listing.truthful(request.struck):
            return await self._forward(request)
        return _xml(
            *await self.listing.answer(request.raw.headers, request.form or {}, request.struck)
        )

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
            body = ec2.document(root)
        return _xml(status, body)

    async def _create_tags(self, request: Request) -> web.StreamResponse:
        check_tags(request.form or {})
        return await self._forward(request)

    async def _create_image(self, request: Request) -> web.StreamResponse:
        raw, form = request.raw, request.form or {}
        return _xml(*await create_image(self.backend, request.region, raw.headers, form))

    async def _ask(self, request: Request) -> web.StreamResponse:
        """As `_forward`, without a word to the client yet."""
        return _xml(*await self.backend.post(request.raw.headers, request.form or {}))

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


def _named(answer: ET.Element) -> set[str]:
    """The instances that an answer to TerminateInstances or StopInstances is about."""
    return {ec2.text(item, "instanceId") for item in answer.findall("instancesSet/item")}


def _failure(request: Request, error: Error) -> web.Response:
    _log.info("%s:%s: %s: %s", request.service, request.action, error.code, error)
    return web.Response(
        status=error.status, body=error.body(request.service), content_type="text/xml"
    )


def _xml(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="text/xml", charset="utf-8")
