"""Waiting for what other threads, processes and machines do."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(holds: Callable[[], object], seconds: float = 10, look: float = 0.02) -> None:
    """Return as soon as it holds; look every `look` seconds. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(look)
