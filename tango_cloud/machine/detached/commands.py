"""What can be asked for in one command line: words in, standard input in, one line of JSON out.

install                the program's own file on this machine, and what the machine says of itself
call [file]            one exchange with an agent; the data that follows the request comes from
                       the file, which is removed, or on standard input
start <job>            begin the job that the request asks for, and tell what `follow` tells
follow <job>           what the job has printed since, and its end
cancel <job>           stop the job; tells nothing, once nothing of it is left

The request comes on standard input, JSON in base64, which neither a shell nor a template can take
for something else. Data stands on a second line.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

from tango_cloud.machine import facts, frames
from tango_cloud.machine.detached import keeper
from tango_cloud.machine.detached.call import call
from tango_cloud.machine.failures import DAMAGED, Failure
from tango_cloud.machine.folders import Folders

_CANCEL_SECONDS = 60.0
"""To end a job, and to remove its files."""
_CHUNK = 1 << 18


def main(words: Sequence[str], program: bytes) -> None:
    """Do what the words say. `program` is the packed program that runs now."""
    os.umask(0o077)
    try:
        folders = Folders(facts.load(os.environ))
        folders.prepare()
        os.chdir(folders.agent)  # so that a socket's name is short, wherever that is
        answer = _perform(folders, words, program)
    except Failure as failure:
        answer = {"failure": {"kind": failure.kind, "message": failure.message}}
    except OSError as error:
        told = {"kind": DAMAGED, "message": f"{type(error).__name__}: {error}"}
        answer = {"failure": told}
    print(json.dumps(answer))  # noqa: T201 - this is what the caller reads


def _perform(folders: Folders, words: Sequence[str], program: bytes) -> dict[str, Any]:
    if words[0] == "install":
        return {"folder": folders.agent, "program": _install(folders, program)}
    if words[0] == "call":
        return _call(folders, words[1:])
    job = "job-" + words[1]
    if words[0] == "start":
        keeper.keep(job, _input()[0])
    if words[0] == "cancel":
        return _cancel(job)
    return _follow(job)


def _install(folders: Folders, program: bytes) -> str:
    """Write the program where jobs cannot reach it; its path."""
    path = os.path.join(folders.agent, "program-" + hashlib.sha256(program).hexdigest()[:16])
    fresh = f"{path}.{os.getpid()}"
    with open(fresh, "wb") as file:
        file.write(program)
    os.replace(fresh, path)
    return path


def _call(folders: Folders, files: Sequence[str]) -> dict[str, Any]:
    request, data = _input()
    if not files:
        return call(folders, request, io.BytesIO(data))
    with open(files[0], "rb") as file:
        os.unlink(files[0])
        return call(folders, request, file)


def _input() -> tuple[dict[str, Any], bytes]:
    """The request and the data that follows it."""
    request, _, data = sys.stdin.read().partition("\n")
    return frames.decode_json(base64.b64decode(request)), base64.b64decode(data)


def _follow(job: str) -> dict[str, Any]:
    output = b""
    with socket.socket(socket.AF_UNIX) as keeping:
        try:
            keeping.connect(job)
            keeping.sendall(keeper.FOLLOW)
            while frame := frames.read_frame(keeping.recv):
                kind, payload = frame
                if kind == frames.OUTPUT:
                    output += payload
                elif kind == frames.END:
                    return _told(output, {})
                else:
                    word = "reply" if kind == frames.REPLY else "failure"
                    return _told(output, {word: frames.decode_json(payload)})
        except (OSError, frames.StreamBroken) as error:
            raise Failure(DAMAGED, f"what kept the job has gone: {error}") from error
    raise Failure(DAMAGED, "what kept the job has gone")


def _told(output: bytes, ending: dict[str, Any]) -> dict[str, Any]:
    return {"output": base64.b64encode(output).decode(), "ended": bool(ending), **ending}


def _cancel(job: str) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as keeping:
        keeping.settimeout(_CANCEL_SECONDS)
        try:
            keeping.connect(job)
        except OSError:
            return {"reply": {}}  # it has not begun, or it has ended
        keeping.sendall(keeper.CANCEL)
        while keeping.recv(_CHUNK):
            pass
    return {"reply": {}}
