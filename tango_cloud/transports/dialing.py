"""Opening a TCP connection to a machine that may still be booting."""

from __future__ import annotations

import socket
import time

_DIAL_SECONDS = 1.5


def dial(peer: tuple[str, int], deadline: float) -> socket.socket:
    """Dial anew every so often: a machine that boots drops what arrives too early, and the kernel
    itself would ask it again after ever longer pauses.

    `deadline` is one of `time.monotonic`. Raises OSError.
    """
    while True:
        try:
            return socket.create_connection(peer, timeout=min(_DIAL_SECONDS, left(deadline)))
        except TimeoutError:
            if time.monotonic() >= deadline:
                raise


def listens(address: str, port: int, timeout: float) -> bool:
    """Whether somebody accepts connections there, tried for at most `timeout` seconds."""
    try:
        dial((address, port), time.monotonic() + timeout).close()
    except OSError:
        return False
    return True


def left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
