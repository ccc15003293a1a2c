"""Answers of the cloud that stay true for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from tango_cloud.core.errors import ProviderUnavailable

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


class Cache(Generic[Key, Answer]):
    """Safe for many threads: those who want the same wait for one question."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: dict[Key, tuple[float, Answer]] = {}

    def get(self, key: Key, ask: Callable[[], Answer]) -> Answer:
        """The answer to `key`, not older than the cache's time unless the cloud is unavailable.

        Raises what `ask` raises.
        """
        with self._lock:
            asked, answer = self._answers.get(key, (None, None))
            if asked is not None and self._clock() - asked < self._seconds:
                return answer  # type: ignore[return-value]
            try:
                fresh = ask()
            except ProviderUnavailable as error:
                if asked is None:
                    raise
                log.warning("going by what was true %.0f s ago: %s", self._clock() - asked, error)
                return answer  # type: ignore[return-value]
            self._answers[key] = (self._clock(), fresh)
            return fresh

    def clear(self) -> None:
        with self._lock:
            self._answers.clear()
