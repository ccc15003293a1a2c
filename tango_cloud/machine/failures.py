"""The agent's exceptions: a failure that the other end turns into an error of its own, and the
other end's own failure."""

from __future__ import annotations

REFUSED = "refused"
"""The machine will not do what was asked; it is as good as before."""
DAMAGED = "damaged"
"""The machine cannot be trusted with another job."""
MISSING = "missing"
"""What was asked for is not there."""


class Failure(Exception):
    """An operation failed. `kind` is one of this module's words, `message` is for a person."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        self.message = message
        super().__init__(message)


class ConnectionGone(Exception):
    """The other end went away in the middle of an operation."""
