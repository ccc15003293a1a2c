"""An agent as a child of this process, spoken to as over a connection."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

from tango_cloud.machine import agent, frames
from tango_cloud.machine.failures import DAMAGED, Failure
from tango_cloud.machine.wire import Wire

_CHUNK = 1 << 18


class Child:
    """One agent. The frames on its `wire` are those of a connection."""

    def __init__(self, become: Callable[[], None] = agent.main) -> None:
        """`become` is called in a forked child, whose standard streams are the agent's.

        Raises Failure when the agent cannot work on this machine.
        """
        requests, sink = os.pipe()
        source, answers = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            os.close(sink)
            os.close(source)
            _become_agent(become, requests, answers)
        os.close(requests)
        os.close(answers)
        self.wire = Wire(source, sink)
        try:
            self.answer(frames.REPLY)
        except BaseException:
            self.close()
            raise

    def request(self, request: Mapping[str, Any]) -> None:
        self.wire.send_raw(frames.encode_json(frames.REQUEST, dict(request)))

    def answer(self, *kinds: int) -> tuple[int, bytes]:
        """The next frame of one of the kinds; signs of life are passed over.

        Raises Failure: the agent's own, or damaged when it is gone.
        """
        while True:
            try:
                frame = self.wire.next_frame()
            except frames.StreamBroken as error:
                raise Failure(DAMAGED, f"the agent broke off: {error}") from error
            if frame is None:
                raise Failure(DAMAGED, "the agent has died")
            kind, payload = frame
            if kind in kinds:
                return frame
            if kind == frames.FAILURE:
                told = frames.decode_json(payload)
                raise Failure(str(told["kind"]), str(told["message"]))

    def close(self) -> None:
        """Hang up, and return once the agent has ended: a running job with it, and its files."""
        os.close(self.wire.sink)
        with contextlib.suppress(OSError):
            while self.wire.read(_CHUNK):
                pass
        os.close(self.wire.source)
        os.waitpid(self._process, 0)


def _become_agent(become: Callable[[], None], requests: int, answers: int) -> None:
    try:
        os.dup2(requests, 0)
        os.dup2(answers, 1)
        os.closerange(3, 256)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        become()
    finally:
        os._exit(0)
