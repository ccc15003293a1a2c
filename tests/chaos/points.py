"""Side effects as numbered points, in a process that is to die at one of them.

Wrapped at the edges, without a change to the product: the ledger's transactions, processes that are
started, files below the state folder, calls to clouds, steps over SSH. Threads interleave, so a
point is known by what it is and the how-manieth of its kind.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.httpsession
import requests.adapters

from tango_cloud.core.ledger.database import Database
from tango_cloud.transports.ssh.session import SshSession
from tango_cloud.transports.ssh.transport import SshTransport

DIE, RECORD = "TANGO_CHAOS_DIE", "TANGO_CHAOS_RECORD"
"""Variables: `SIDE POINT`, where SIDE is before or after; the file that points are written to."""
_WRITES = ("w", "a", "x", "+")
_SSH = ("put", "run", "get", "stage_host_key", "activate_host_key", "close")


class Points:
    def __init__(self, state: Path) -> None:
        self._state = str(state)
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._die = os.environ.get(DIE, "")
        record = os.environ.get(RECORD)
        self._record = Path(record).open("a", encoding="utf-8") if record else None  # noqa: SIM115

    @contextmanager
    def around(self, what: str) -> Iterator[None]:
        with self._lock:
            self._counts[what] += 1
            point = f"{what} #{self._counts[what]}"
            if self._record is not None:
                self._record.write(f"{point}\n")
                self._record.flush()
        self._perhaps(f"before {point}")
        yield
        self._perhaps(f"after {point}")

    def _perhaps(self, here: str) -> None:
        if here == self._die:
            os.kill(os.getpid(), signal.SIGKILL)

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
        return f"{verb} {_nameless(text.removeprefix(self._state))}"


def install(state: Path) -> None:
    points = Points(state)
    _ledger(points)
    points.wrap(
        subprocess.Popen, "__init__", lambda _self, argv, *_, **__: f"process {_command(argv)}"
    )
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
    points.wrap(
        io,
        "open",
        lambda path, mode="r", *_, **__: (
            points.file("write", path) if any(one in mode for one in _WRITES) else None
        ),
    )
    for name in _SSH:
        points.wrap(SshSession, name, lambda *_, name=name, **__: f"ssh {name}")
    points.wrap(SshTransport, "connect", lambda *_, **__: "ssh connect")
    points.wrap(
        botocore.httpsession.URLLib3Session, "send", lambda _, sent: f"call {_action(sent.body)}"
    )
    points.wrap(
        requests.adapters.HTTPAdapter,
        "send",
        lambda _, sent, **__: f"call {sent.method} {_nameless(sent.path_url.split('?')[0])}",
    )


def _ledger(points: Points) -> None:
    original = Database.write

    @contextmanager
    def write(self: Database) -> Iterator[Any]:
        # Past contextlib's own frames: the method of the ledger that writes.
        caller = sys._getframe(2)
        with points.around(f"ledger {caller.f_code.co_qualname}"), original(self) as connection:
            yield connection

    Database.write = write  # type: ignore[method-assign]


def _command(argv: object) -> str:
    words = [str(word) for word in argv] if isinstance(argv, list | tuple) else [str(argv)]
    named = [word for word in words[1:3] if not word.startswith("-") and "/" not in word]
    return " ".join([Path(words[0]).name, *named])


def _action(body: object) -> str:
    text = body.decode() if isinstance(body, bytes) else str(body)
    return next((p[7:] for p in text.split("&") if p.startswith("Action=")), "request")


def _nameless(text: str) -> str:
    """Without what differs from run to run."""
    parts = text.split("/")
    return "/".join("*" if _is_name(part) else part for part in parts if part)


def _is_name(part: str) -> bool:
    return sum(char.isdigit() for char in part) > 2
