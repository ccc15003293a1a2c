"""Token buckets: how many machines each cloud may now be asked to make, or to remove, by all
processes together.

A cloud counts its account's calls, so all deployments of a ledger share a bucket. It has the name
of what is asked: `aws/create`.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from tango_cloud.core.ledger.database import Database
from tango_cloud.core.ledger.records import Clock
from tango_cloud.core.ledger.schema import buckets
from tango_cloud.core.model import Rate

_ROUNDING = 1e-6


class Buckets:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def draw(self, name: str, rate: Rate, wanted: int) -> int:
        """Take as many as there are, at most `wanted`. Returns how many that were."""
        now = self._clock()
        with self._database.write() as connection:
            count = min(wanted, int(_tokens(connection, name, rate, now)))
            take(connection, name, rate, count, now)
            return count


def allowed(connection: Connection, name: str, rate: Rate, wanted: int, now: float) -> int:
    """How many of `wanted` may be asked for now: as many as the bucket holds, or none as long as
    fewer are in it than it can hold and are wanted. Small groups would cost an apply each.
    """
    tokens = _tokens(connection, name, rate, now)
    return int(tokens) if tokens >= min(wanted, rate.burst) else 0


def ready_at(connection: Connection, name: str, rate: Rate, wanted: int, now: float) -> float:
    """When that will be more than none, in seconds since the epoch."""
    missing = min(wanted, rate.burst) - _tokens(connection, name, rate, now)
    return now + max(0.0, missing / rate.per_second)


def follow_clock(connection: Connection, name: str, now: float) -> None:
    """After the clock was set back, fill from now on, not from when it comes there again."""
    connection.execute(
        update(buckets)
        .where(buckets.c.name == name, buckets.c.filled_at > now)
        .values(filled_at=now)
    )


def take(connection: Connection, name: str, rate: Rate, count: int, now: float) -> None:
    """In the transaction that asks for them, which has begun as a writer."""
    tokens = _tokens(connection, name, rate, now) - count
    connection.execute(delete(buckets).where(buckets.c.name == name))
    connection.execute(insert(buckets).values(name=name, tokens=tokens, filled_at=now))


def _tokens(connection: Connection, name: str, rate: Rate, now: float) -> float:
    """What is in it; one that nobody has drawn from yet is full."""
    row = connection.execute(
        select(buckets).where(buckets.c.name == name).with_for_update()
    ).first()
    if row is None:
        return float(rate.burst)
    # A clock that was set back fills nothing, and takes nothing.
    filled = row.tokens + max(0.0, now - row.filled_at) * rate.per_second + _ROUNDING
    return float(min(rate.burst, filled))
