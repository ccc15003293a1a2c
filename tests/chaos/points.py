"""Side effects as numbered points, in a process that is to die at one of them.

Wrapped at the edges, without a change to the product: the ledger's transactions, processes that are
started, files below the state folder, calls to clouds, steps over SSH. Threads interleave, so a
point is known by what it is and the how-manieth of its kind.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import botocore.httpsession
import psutil
import requests.adapters

from tango_cloud.core.ledger import database
from tango_cloud.transports.ssh.channel import AgentChannel
from tango_cloud.transports.ssh.session import SshSession
from tango_cloud.transports.ssh.transport import SshTransport

DIE, RECORD = "TANGO_CHAOS_DIE", "TANGO_CHAOS_RECORD"
"""Variables: `SIDE POINT`; the file that the deaths which can be died are written to."""
_WRITES = ("w", "a", "x", "+")
_NAME = re.compile(r"[0-9a-f]{12}|\d\D*\d\D*\d")
"""What differs from run to run has a uid, or many digits."""


class Side(StrEnum):
    """Of a point."""

    BEFORE = "before"
    AFTER = "after"
    CRASH = "crash"
    """After it, together with every process that was started: Terraform and its plugins."""


class Points:
    def __init__(self, state: Path) -> None:
        self._state = str(state)
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._die = os.environ.get(DIE, "")
        self._record = os.environ.get(RECORD, "")

    @contextmanager
    def around(self, what: str) -> Iterator[None]:
        with self._lock:
            self._counts[what] += 1
            point = f"{what} #{self._counts[what]}"
        self._perhaps(Side.BEFORE, point)
        yield
        if self._record:
            self._note(point)
        self._perhaps(Side.AFTER, point)
        self._perhaps(Side.CRASH, point)

    def _perhaps(self, side: Side, point: str) -> None:
        if self._die != f"{side} {point}":
            return
        started = psutil.Process().children(recursive=True) if side is Side.CRASH else ()
        for pid in (*(process.pid for process in started), os.getpid()):
            os.kill(pid, signal.SIGKILL)

    def _note(self, point: str) -> None:
        """Only what has come to its end was a side effect: a folder that is made may be there."""
        started = psutil.Process().children()
        sides = [side for side in Side if started or side is not Side.CRASH]
        line = "".join(f"{side} {point}\n" for side in sides).encode()
        descriptor = os.open(self._record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line)
        os.close(descriptor)

    def wrap(self, owner: object, name: str, what: Callable[..., str | None]) -> None:
        """Have calls of `owner.name` be points, by the name that `what` makes of the arguments; a
        call of which it makes none is no point."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            told = what(*arguments, **named)
            if told is None:
                return original(*arguments, **named)
            with self.around(told):
                return original(*arguments, **named)

        setattr(owner, name, wrapped)

    def file(self, verb: str, path: object) -> str | None:
        try:
            text = os.fsdecode(os.fspath(path))  # type: ignore[call-overload]
        except TypeError:
            return None  # a descriptor
        if not text.startswith(self._state) or "ledger.sqlite3" in text:
            return None
        return f"file {verb} {_nameless(text.removeprefix(self._state))}"


def install(state: Path) -> None:
    points = Points(state)
    _ledger(points)
    _files(points)
    points.wrap(
        subprocess.Popen, "__init__", lambda _self, argv, *_, **__: f"process {_command(argv)}"
    )
    points.wrap(SshTransport, "connect", lambda *_, **__: "ssh connect")
    points.wrap(AgentChannel, "request", lambda _, operation, **__: f"ssh request {operation}")
    points.wrap(AgentChannel, "send_data", lambda *_: "ssh send data")
    points.wrap(SshSession, "close", lambda *_: "ssh close")
    points.wrap(
        botocore.httpsession.URLLib3Session, "send", lambda _, sent: f"call {_action(sent.body)}"
    )
    points.wrap(
        requests.adapters.HTTPAdapter,
        "send",
        lambda _, sent, **__: f"call {sent.method} {_nameless(sent.path_url.split('?')[0])}",
    )


def _ledger(points: Points) -> None:
    original = database.Database.write

    @contextmanager
    def write(self: database.Database) -> Iterator[Any]:
        # Past contextlib's own frames: the method of the ledger that writes.
        caller = sys._getframe(2)
        with points.around(f"ledger {caller.f_code.co_qualname}"), original(self) as connection:
            yield connection

    database.Database.write = write  # type: ignore[method-assign]
    points.wrap(database, "_migrate", lambda *_: "ledger migrate")


def _files(points: Points) -> None:
    for name in ("unlink", "remove", "mkdir", "rmdir"):
        points.wrap(os, name, lambda path, *_, name=name, **__: points.file(name, path))
    for name in ("replace", "rename", "link"):
        points.wrap(os, name, lambda _old, new, *_, name=name, **__: points.file(name, new))
    points.wrap(shutil, "rmtree", lambda path, *_, **__: points.file("rmtree", path))
    points.wrap(
        os,
        "open",
        lambda path, flags, *_, **__: points.file("open", path) if flags & os.O_CREAT else None,
    )
    for module in (io, builtins):
        points.wrap(
            module,
            "open",
            lambda path, mode="r", *_, **__: (
                points.file("write", path) if any(one in mode for one in _WRITES) else None
            ),
        )


def _command(argv: object) -> str:
    words = [str(word) for word in argv] if isinstance(argv, list | tuple) else [str(argv)]
    named = [word for word in words[1:3] if not word.startswith("-") and "/" not in word]
    return " ".join([Path(words[0]).name, *named])


def _action(body: object) -> str:
    text = body.decode() if isinstance(body, bytes) else str(body)
    return next((p[7:] for p in text.split("&") if p.startswith("Action=")), "request")


def _nameless(text: str) -> str:
    """Without what differs from run to run."""
    return "/".join("*" if _NAME.search(part) else part for part in text.split("/") if part)
