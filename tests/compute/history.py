"""What resources were like: for lists that are late."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .listing import Items
from .resources import Place, Resource


@dataclass
class History:
    _clock: Callable[[], float] = time.monotonic
    _notes: list[tuple[float, Place, Resource | None]] = field(default_factory=list)

    def note(self, place: Place, resource: Resource | None) -> None:
        """It is so from now on; None: it is gone."""
        self._notes.append((self._clock(), place, None if resource is None else dict(resource)))

    def before(self, seconds: float, project: str, scope: str) -> Items:
        """What there was so many seconds ago in a project, or in one scope of it."""
        until = self._clock() - seconds
        last = {place: resource for at, place, resource in self._notes if at <= until}
        return [
            (place, resource)
            for place, resource in sorted(last.items(), key=lambda item: item[0])
            if resource is not None and place.project == project and scope in {"", place.scope}
        ]
