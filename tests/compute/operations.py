"""Operations: what a call has begun and goes on after its answer. PENDING, RUNNING, DONE."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import Error, OperationError
from .resources import Place, Resource, Resources, moment

USER = "tester@example.com"
SYSTEM = "system@google.com"
_PENDING_SECONDS = 0.02
_WAIT_SECONDS = 120
"""How long `wait` waits; then it answers with an operation that is not done."""
_log = logging.getLogger("compute.operations")

Work = Callable[[], Awaitable[None]]
"""What an operation does while it runs. Raises OperationError to end it so."""


@dataclass
class Operations:
    resources: Resources
    broken: list[str] = field(default_factory=list)
    """Faults of our own; a test has failed when there is one."""
    _over: dict[Place, asyncio.Event] = field(default_factory=dict)
    _requests: dict[tuple[str, ...], tuple[Mapping[str, Any], Place]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def begin(self, kind: str, target: Place, work: Work, *, user: str = USER) -> Resource:
        """An operation of that kind (`insert`) on a resource that is there. Returns at once."""
        name = f"operation-{time.time_ns() // 1_000_000}-{secrets.token_hex(12)}"
        place = Place(target.project, target.scope, "operations", name)
        now = moment()
        content = {
            "operationType": kind,
            "targetLink": target.link,
            "targetId": self.resources.get(target)["id"],
            "status": "PENDING",
            "progress": 0,
            "user": user,
            "insertTime": now,
        }
        scope, _, where = target.scope.partition("/")
        if where:
            content[scope.removesuffix("s")] = Place(target.project, "", scope, where).link
        made = self.resources.add(place, "operation", content)
        self._over[place] = asyncio.Event()
        self.spawn(self._run(place, made, work))
        return made

    async def _run(self, place: Place, operation: Resource, work: Work) -> None:
        await asyncio.sleep(_PENDING_SECONDS)
        operation |= {"status": "RUNNING", "startTime": moment()}
        try:
            await work()
        except OperationError as error:
            operation |= error.fields()
        except Exception as error:  # it would be lost with its task
            _log.exception("%s", place.path)
            self.broken.append(f"{operation['operationType']}: {error!r}")
            operation |= OperationError("INTERNAL_ERROR", repr(error)).fields()
        operation |= {"status": "DONE", "progress": 100, "endTime": moment()}
        self._over[place].set()

    async def wait(self, place: Place) -> Resource:
        """The operation, as soon as it is done or the wait is too long. Raises Error."""
        operation = self.resources.get(place)
        place = place.of(operation["name"])
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._over[place].wait()
        except TimeoutError:
            pass
        return operation

    def earlier(self, request: tuple[str, ...], content: Mapping[str, Any]) -> Resource | None:
        """The operation that a request with this id has begun. Raises Error when the request was
        another one."""
        if request not in self._requests:
            return None
        known, place = self._requests[request]
        if known != content:
            text = f"Invalid value for field 'requestId': '{request[-1]}'. It was used before."
            raise Error("invalid", text)
        return self.resources.get(place)

    def remember(
        self, request: tuple[str, ...], content: Mapping[str, Any], operation: Resource
    ) -> None:
        target = operation["selfLink"].partition("/projects/")[2].split("/")
        project, scope, name = target[0], "/".join(target[1:-2]), target[-1]
        self._requests[request] = (content, Place(project, scope, "operations", name))

    def spawn(self, work: Awaitable[None]) -> None:
        """Have it done meanwhile."""

        async def done() -> None:
            await work

        task = asyncio.create_task(done())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
