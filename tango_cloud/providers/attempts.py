"""Doing many things of which some may fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from tango_cloud.core.errors import TangoCloudError

Item = TypeVar("Item")


def attempt_each(items: Iterable[Item], act: Callable[[Item], object]) -> None:
    """`act` on each. All are tried before the first TangoCloudError of theirs is raised."""
    failures: list[TangoCloudError] = []
    for item in items:
        try:
            act(item)
        except TangoCloudError as error:
            failures.append(error)
    if failures:
        raise failures[0]
