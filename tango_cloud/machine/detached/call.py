"""One exchange with an agent of its own: everything but a run."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
from collections.abc import Mapping
from typing import IO, Any

from tango_cloud.machine import frames
from tango_cloud.machine.detached.child import Child
from tango_cloud.machine.failures import DAMAGED, Failure
from tango_cloud.machine.folders import Folders

_CHUNK = 1 << 18
_AT_HAND = 1 << 16
"""Bytes that are told with the answer; more is left in a file."""


def call(folders: Folders, request: Mapping[str, Any], data: IO[bytes]) -> dict[str, Any]:
    """The answer: a `reply`, or the `data` that was asked for (base64), or the `file` it is in.

    A copy-in is followed by `data`, to its end. Raises Failure.
    """
    child = Child()
    try:
        child.request(request)
        if request.get("op") == "put":
            _send(child, data)
        kind, payload = child.answer(frames.REPLY, frames.DATA, frames.END)
        if kind == frames.REPLY:
            return {"reply": frames.decode_json(payload)}
        return _receive(child, folders, kind, payload)
    except OSError as error:
        raise Failure(DAMAGED, f"{type(error).__name__}: {error}") from error
    finally:
        child.close()


def _send(child: Child, data: IO[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the agent's answer says why
        while part := data.read(_CHUNK):
            child.wire.send(frames.DATA, part)
        child.wire.send(frames.END)


def _receive(child: Child, folders: Folders, kind: int, payload: bytes) -> dict[str, Any]:
    data = b""
    while kind == frames.DATA:
        data += payload
        if len(data) > _AT_HAND:
            return {"file": _keep(child, folders, data)}
        kind, payload = child.answer(frames.DATA, frames.END)
    return {"data": base64.b64encode(data).decode()}


def _keep(child: Child, folders: Folders, data: bytes) -> str:
    """Write `data` and what follows it to a file; its path."""
    path = os.path.join(folders.agent, "answer-" + secrets.token_hex(8))
    try:
        with open(path, "xb") as file:
            kind = frames.DATA
            while kind == frames.DATA:
                file.write(data)
                kind, data = child.answer(frames.DATA, frames.END)
    except BaseException:
        os.unlink(path)
        raise
    return path
