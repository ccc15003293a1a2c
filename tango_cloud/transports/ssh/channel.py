"""Our end of an agent's channel: starts the agent, sends requests, takes answers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import paramiko

from tango_cloud.core.errors import InputError, MachineUnreachable, TangoCloudError
from tango_cloud.machine import bundle, frames
from tango_cloud.transports.failures import raise_failure

SILENCE_SECONDS = 10.0
"""An agent at work gives a sign of life every second: after so much silence it counts as gone."""

_FRAME_BYTES = 1 << 18
_PACKET_BYTES = 1 << 15


class AgentChannel:
    """One agent. Whoever uses it holds `lock` for a whole exchange; only `cancel` comes in between.

    Every method raises MachineUnreachable when the channel breaks, and the error that the agent's
    failure stands for: JobRefused, MachineDamaged, MachineNotFound.
    """

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._sending = threading.Lock()
        self.lock = threading.Lock()

    @classmethod
    def start(cls, transport: paramiko.Transport, timeout: float, *, sudo: bool) -> AgentChannel:
        """Open a channel and start an agent on it, as root by `sudo`, within `timeout` seconds.

        Raises MachineUnreachable, also when the machine has no usable Python or was told nonsense
        about itself: its first boot may not have come to that yet.
        """
        with _breaking("the machine did not start our agent"):
            channel = transport.open_session(timeout=timeout)
            channel.settimeout(timeout)
            channel.exec_command(bundle.command(sudo=sudo))
        agent = cls(channel)
        try:
            with _breaking("the machine did not start our agent"):
                channel.sendall(bundle.payload())
            agent._answer(frames.REPLY)
        except TangoCloudError as error:
            raise MachineUnreachable(f"{error}{_said(channel)}") from error
        channel.settimeout(SILENCE_SECONDS)
        return agent

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """One exchange: a request, its reply."""
        self.request(operation, **arguments)
        return self.reply()

    def request(self, operation: str, **arguments: Any) -> None:
        self._send(frames.encode_json(frames.REQUEST, {"op": operation, **arguments}))

    def send_data(self, pieces: Iterable[bytes]) -> None:
        """Send the pieces, in frames of a good size, and END; ABORT if they raise InputError."""
        try:
            for framed in _framed(pieces):
                self._send(framed)
        except InputError:
            self._send(frames.encode(frames.ABORT))
            raise

    def cancel(self) -> None:
        self._send(frames.encode(frames.CANCEL))

    def reply(self) -> dict[str, Any]:
        with _breaking("the connection to the machine broke"):
            return frames.decode_json(self._answer(frames.REPLY)[1])

    def output_then_reply(self) -> Iterator[bytes | dict[str, Any]]:
        """A running job's output as it comes, and the reply last."""
        while True:
            kind, payload = self._answer(frames.OUTPUT, frames.REPLY)
            if kind == frames.REPLY:
                yield frames.decode_json(payload)
                return
            yield payload

    def data(self) -> Iterator[bytes]:
        """The bytes that answer a request, until END."""
        while True:
            kind, payload = self._answer(frames.DATA, frames.END)
            if kind == frames.END:
                return
            yield payload

    def close(self) -> None:
        self._channel.close()

    def _send(self, data: bytes) -> None:
        sent = 0
        with self._sending, _breaking("the connection to the machine broke"):
            while sent < len(data):
                try:
                    # paramiko sends one packet at a time: a slice keeps it from copying the rest.
                    sent += self._channel.send(data[sent : sent + _PACKET_BYTES])
                except TimeoutError:
                    self._require_sign_of_life()

    def _require_sign_of_life(self) -> None:
        """The machine takes no data: it may still have a large job to remove, and says so then."""
        frame = frames.read_frame(self._channel.recv)
        if frame is None or frame[0] != frames.TICK:
            raise frames.StreamBroken("the machine takes no data")

    def _answer(self, *kinds: int) -> tuple[int, bytes]:
        """The next frame, signs of life passed over; a failure raises its error."""
        while True:
            with _breaking("the machine stopped answering"):
                frame = frames.read_frame(self._channel.recv)
            if frame is None:
                raise MachineUnreachable("the machine ended the connection")
            kind, payload = frame
            if kind in kinds:
                return frame
            if kind == frames.FAILURE:
                raise_failure(frames.decode_json(payload))
            if kind != frames.TICK:
                raise MachineUnreachable(f"the machine answered out of turn (frame {kind})")


def _framed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes as DATA frames, small pieces joined: 5,000 small files are a few dozen frames.
    END comes along with the last one, which saves a packet."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        if size + len(piece) > _FRAME_BYTES and waiting:
            yield frames.encode(frames.DATA, b"".join(waiting))
            waiting, size = [], 0
        waiting.append(piece)
        size += len(piece)
    yield frames.encode(frames.DATA, b"".join(waiting)) + frames.encode(frames.END)


def _said(channel: paramiko.Channel) -> str:
    """What the machine wrote to standard error, for the message."""
    with contextlib.suppress(OSError, EOFError):
        channel.settimeout(0.5)
        said = channel.recv_stderr(2000).decode(errors="replace").strip()
        if said:
            return f": {said}"
    return ""


@contextlib.contextmanager
def _breaking(what: str) -> Iterator[None]:
    """Turn all the ways in which a connection breaks into MachineUnreachable."""
    try:
        yield
    except (OSError, EOFError, paramiko.SSHException, frames.StreamBroken) as error:
        raise MachineUnreachable(f"{what}: {error or type(error).__name__}") from error
