"""The life cycle of a machine: one table of allowed moves.

::

    requested ──► creating ──► starting ──► ready ◄──► leased
        │            │            │           │          │
        ├────────────┴────────────┴───────────┴──────────┤
        ▼                                                ▼
      failed ─────────────────────────────────────► destroying
                                                         │
                                                         ▼
                                                       gone

- `ready`: an SSH session was opened with the expected host key, and the bootstrap key replaced.
- `gone`: the cloud said so, or was never asked. Any state may become gone: machines get lost.
- `failed`: not to be used again; something of it may still be in the cloud.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    REQUESTED = "requested"
    CREATING = "creating"
    STARTING = "starting"
    READY = "ready"
    LEASED = "leased"
    FAILED = "failed"
    DESTROYING = "destroying"
    GONE = "gone"


class Reason(StrEnum):
    """Why a machine is in a state that it was not meant to be in."""

    NONE = ""
    RELEASED = "released"
    """Nobody needs it any more."""
    RECONCILED = "reconciled"
    """A reconciliation found that it must go; the detail says why."""
    SUPERSEDED = "superseded"
    """Given up before it existed; the same identity was requested anew."""
    LOST = "lost"
    """The cloud no longer shows it, and we did not ask for that."""
    NO_CAPACITY = "no-capacity"
    PROVISIONING = "provisioning"
    """Terraform or the cloud could not make it."""
    HOST_KEY = "host-key"
    """Something answered in its place with another host key."""
    DAMAGED = "damaged"
    """A job left it in a state that the driver could not clean up."""


_MOVES: dict[State, frozenset[State]] = {
    State.REQUESTED: frozenset({State.CREATING, State.FAILED, State.DESTROYING}),
    State.CREATING: frozenset({State.STARTING, State.FAILED, State.DESTROYING}),
    State.STARTING: frozenset({State.READY, State.FAILED, State.DESTROYING}),
    State.READY: frozenset({State.LEASED, State.FAILED, State.DESTROYING}),
    State.LEASED: frozenset({State.READY, State.FAILED, State.DESTROYING}),
    State.FAILED: frozenset({State.DESTROYING}),
    State.DESTROYING: frozenset(),
    State.GONE: frozenset(),
}

LIVE = frozenset(State) - {State.GONE}
USABLE = frozenset({State.READY, State.LEASED})


def allowed(source: State, target: State) -> bool:
    """Whether a machine may move from `source` to `target`."""
    if target is State.GONE:
        return source is not State.GONE
    return target in _MOVES[source]


def sources(target: State) -> frozenset[State]:
    """The states from which `target` may be reached: the condition of the statement that moves."""
    return frozenset(source for source in State if allowed(source, target))
