"""The keeper: stands for the connection of a job whose callers come and go.

It holds an agent that runs one job, and answers whoever follows the job over a socket. It is the
connection in this too, that the job ends with it: when a follower breaks off in the middle, or none
has come for a while, the keeper hangs up.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Mapping
from typing import Any

from tango_cloud.machine import frames
from tango_cloud.machine.detached.child import Child
from tango_cloud.machine.failures import Failure

FOLLOW = b"f"
CANCEL = b"c"

FOLLOW_SECONDS = 8.0
"""How long a follower waits for news before it is told that there is none."""
SILENCE_SECONDS = 20.0
"""How long a job goes on without a follower."""
_WAITING_BYTES = 1 << 17
"""Output that waits for a follower; more stays with the agent. ansible-runner drops a result that
is longer than 700,000 characters, and this is in it twice, in base64, with up to one more frame."""
_GREETING_SECONDS = 1.0


class Keeper:
    """Serves `listener` until the job's end is told or nobody asks for it any more."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._child: Child | None = None
        self._news = b""
        self._ended = False
        self._follower: socket.socket | None = None
        self._cancelling: list[socket.socket] = []
        self._until = time.monotonic() + SILENCE_SECONDS

    def serve(self, request: Mapping[str, Any]) -> None:
        """Run the job that `request` asks for. Returns once nothing of it is left."""
        try:
            self._child = Child()
            self._child.request(request)
        except Failure as failure:
            self._end(failure)
        try:
            while self._attend():
                pass
        finally:
            if self._child is not None:
                self._child.close()
            for peer in self._cancelling:
                peer.close()

    def _attend(self) -> bool:
        """Wait for what comes next; whether anything more is to be waited for."""
        child, follower = self._child, self._follower
        reading: list[Any] = [self._listener]
        if follower is not None:
            reading.append(follower)
        if child is not None and not self._ended and len(self._news) < _WAITING_BYTES:
            reading.append(child.wire.source)
        ready = select.select(reading, [], [], max(0.0, self._until - time.monotonic()))[0]
        if self._listener in ready:
            self._greet()
        if follower is not None and follower in ready:
            return False  # followers say nothing more: this one has broken off
        if child is not None and child.wire.source in ready:
            self._hear(child)
        late = time.monotonic() >= self._until
        if self._follower is not None and (self._news or late):
            return self._tell(self._follower)
        if self._cancelling and self._ended:
            return False
        return self._follower is not None or not late

    def _greet(self) -> None:
        """Take in a new caller. A second follower takes the place of the first."""
        peer, _ = self._listener.accept()
        peer.settimeout(_GREETING_SECONDS)
        word = b""
        with contextlib.suppress(OSError):
            word = peer.recv(1)
        peer.settimeout(SILENCE_SECONDS)
        if word == FOLLOW:
            self._follower = peer
            self._until = time.monotonic() + FOLLOW_SECONDS
        elif word == CANCEL:
            self._cancelling.append(peer)
            if self._child is not None and not self._ended:
                with contextlib.suppress(BrokenPipeError):  # it is ending by itself
                    self._child.wire.send(frames.CANCEL)
        else:
            peer.close()

    def _hear(self, child: Child) -> None:
        try:
            kind, payload = child.answer(frames.OUTPUT, frames.REPLY, frames.TICK)
        except Failure as failure:
            self._end(failure)
            return
        if kind != frames.TICK:
            self._news += frames.encode(kind, payload)
        self._ended = kind == frames.REPLY

    def _end(self, failure: Failure) -> None:
        told = {"kind": failure.kind, "message": failure.message}
        self._news += frames.encode_json(frames.FAILURE, told)
        self._ended = True

    def _tell(self, follower: socket.socket) -> bool:
        """Give the follower the news, if there are any; whether more will come."""
        self._follower = None
        self._until = time.monotonic() + SILENCE_SECONDS
        try:
            follower.sendall(self._news + frames.encode(frames.END))
        except OSError:
            return False
        finally:
            follower.close()
        self._news = b""
        return not self._ended


def keep(path: str, request: Mapping[str, Any]) -> None:
    """Leave a keeper behind that runs the job and answers on the socket `path`; return at once.

    One that is there already is left alone.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
    except OSError:
        listener.close()
        return
    listener.listen(8)
    between = os.fork()
    if between:
        listener.close()
        os.waitpid(between, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            try:
                Keeper(listener).serve(request)
            finally:
                os.unlink(path)
    finally:
        os._exit(0)
