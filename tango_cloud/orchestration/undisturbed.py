"""Work that an interruption finds in no half-done state."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from tango_cloud.core.errors import InterruptedTwice

_NOTICE_SECONDS = 0.2
"""How soon an interruption is noticed that came at a bad moment."""

Result = TypeVar("Result")


def undisturbed(work: Callable[[], Result], cancel: Callable[[], None]) -> Result:
    """What `work` gives, or raises.

    It is done in another thread: Ctrl-C only ever strikes the main one. Interrupted, `cancel` is
    called, which is to make `work` undo what it did and return; then the interruption goes on its
    way. Raises InterruptedTwice when that may not be waited for.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="undisturbed")
    working = pool.submit(work)
    try:
        pool.shutdown(wait=False)
        _wait_for(working)
        return working.result()
    except KeyboardInterrupt:
        try:
            cancel()
            _wait_for(working)
        except KeyboardInterrupt as again:
            raise InterruptedTwice from again
        raise


def _wait_for(working: Future[Any]) -> None:
    """In short waits: a signal that comes in the moment before a wait is noticed only after it."""
    while not wait([working], _NOTICE_SECONDS).done:
        pass
