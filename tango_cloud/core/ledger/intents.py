"""Intents: machines that are asked for and that no wave has claimed, and whose turn it is.

Where a cloud bounds how fast it may be asked, whoever finds enough in its token bucket hands that
out to all who wait, in turn: among deployments, and among the pools of each (machines of one
shape). What it was handed, a deployment claims when it can.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from tango_cloud.core.ledger import buckets
from tango_cloud.core.ledger.database import Database
from tango_cloud.core.ledger.records import Clock, machine_of, note
from tango_cloud.core.ledger.schema import machines, waves
from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import Machine, Rate, WaveState

_LONGEST_DELAY = 120.0
"""Seconds. Failures in passing are met again after a minute at the longest."""
_POOL = (machines.c.image, machines.c.cores, machines.c.memory_mib, machines.c.disk_gib)


class Intents:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def waiting(self, deployment: str, providers: Collection[str]) -> Mapping[str, int]:
        """How many intents of these providers are due, by provider."""
        with self._database.read() as connection:
            found = connection.execute(
                select(machines.c.provider, func.count())
                .where(
                    _due(self._clock()),
                    machines.c.deployment == deployment,
                    machines.c.provider.in_(providers),
                )
                .group_by(machines.c.provider)
            )
            return {provider: int(count) for provider, count in found}

    def next_due(
        self, deployment: str, providers: Collection[str], rates: Mapping[str, Rate]
    ) -> float | None:
        """When the first intent of these providers may be claimed, in seconds since the epoch; None
        without any. `rates` are those of the providers that have one.
        """
        now = self._clock()
        with self._database.read() as connection:
            waiting = connection.execute(
                select(machines.c.provider, func.min(machines.c.not_before))
                .where(
                    machines.c.deployment == deployment,
                    machines.c.provider.in_(providers),
                    machines.c.state == State.REQUESTED,
                )
                .group_by(machines.c.provider)
            ).all()
            return min(
                (
                    self._next_turn(connection, deployment, provider, rates.get(provider), now)
                    if not now < first <= now + _LONGEST_DELAY
                    else float(first)
                    for provider, first in waiting
                ),
                default=None,
            )

    def claim(
        self,
        deployment: str,
        provider: str,
        wave: str,
        owner: str,
        *,
        rate: Rate | None = None,
        most: int | None = None,
    ) -> Sequence[Machine]:
        """Put the deployment's intents into a new wave of `owner`: all, or of more than `most` the
        next ones; with `rate` only those whose turn it is.

        Nobody else gets any of them. The wave is on the books if there were any.
        """
        now = self._clock()
        mine = and_(_due(now), machines.c.deployment == deployment, machines.c.provider == provider)
        with self._database.write() as connection:
            if rate is not None:
                _hand_out(connection, provider, rate, now)
                mine = and_(mine, machines.c.granted)
            if most is not None:
                mine = and_(mine, machines.c.uid.in_(_in_turn(mine, most)))
            rows = connection.execute(
                update(machines)
                .where(mine)
                .values(state=State.CREATING, wave=wave, changed_at=now)
                .returning(machines)
            ).all()
            claimed = [machine_of(row) for row in rows]
            if claimed:
                connection.execute(
                    insert(waves).values(
                        wave=wave,
                        deployment=deployment,
                        provider=provider,
                        state=WaveState.APPLYING,
                        owner=owner,
                        created_at=now,
                    )
                )
                note(connection, now, claimed, State.CREATING, f"wave {wave}")
            return claimed

    def _next_turn(
        self,
        connection: Connection,
        deployment: str,
        provider: str,
        rate: Rate | None,
        now: float,
    ) -> float:
        if rate is None or deployment in _handed_to(connection, provider, now):
            return now
        wanted = connection.execute(
            select(func.count()).where(*_eligible(connection, provider, now))
        ).scalar_one()
        return buckets.ready_at(connection, _bucket(provider), rate, wanted, now)


def _bucket(provider: str) -> str:
    return f"{provider}/create"


def _due(now: float) -> ColumnElement[bool]:
    """Also what is put off for longer than anything ever is: the clock was set back meanwhile."""
    return and_(
        machines.c.state == State.REQUESTED,
        or_(machines.c.not_before <= now, machines.c.not_before > now + _LONGEST_DELAY),
    )


def _hand_out(connection: Connection, provider: str, rate: Rate, now: float) -> None:
    """Give what the bucket holds to the next in turn, whosever they are."""
    eligible = _eligible(connection, provider, now)
    wanted = connection.execute(select(func.count()).where(*eligible)).scalar_one()
    buckets.follow_clock(connection, _bucket(provider), now)
    allowed = buckets.allowed(connection, _bucket(provider), rate, wanted, now)
    if not allowed:
        return
    served = connection.execute(
        select(func.count()).where(machines.c.provider == provider, machines.c.granted)
    ).scalar_one()
    given = connection.execute(
        update(machines)
        .where(machines.c.uid.in_(_in_turn(and_(*eligible), allowed, served)))
        .values(granted=True)
    ).rowcount
    buckets.take(connection, _bucket(provider), rate, given, now)


def _eligible(connection: Connection, provider: str, now: float) -> Sequence[ColumnElement[bool]]:
    """Intents of deployments that have claimed all they were given: of one whose processes are all
    dead not more than that is ever held back from the others."""
    return (
        _due(now),
        machines.c.provider == provider,
        machines.c.deployment.not_in(_handed_to(connection, provider, now)),
    )


def _handed_to(connection: Connection, provider: str, now: float) -> Sequence[str]:
    """The deployments that have yet to claim what they were given."""
    return (
        connection.execute(
            select(machines.c.deployment)
            .where(_due(now), machines.c.provider == provider, machines.c.granted)
            .distinct()
        )
        .scalars()
        .all()
    )


def _in_turn(wanted: ColumnElement[bool], most: int, served: int = 0) -> Select[tuple[str]]:
    """The uids of the next `most` of `wanted`: the deployments in turn, the pools of each in turn,
    the oldest of a pool first. Who begins is another one for each number of those `served` before:
    else the odd one out of each turn would always go to the same.
    """
    in_pool = func.row_number().over(
        partition_by=[machines.c.deployment, *_POOL],
        order_by=[machines.c.created_at, machines.c.uid],
    )
    numbered = (
        select(
            machines.c.uid,
            machines.c.deployment,
            in_pool.label("turn"),
            func.dense_rank().over(order_by=machines.c.deployment).label("deployment_number"),
            func.dense_rank()
            .over(partition_by=machines.c.deployment, order_by=list(_POOL))
            .label("pool_number"),
        )
        .where(wanted)
        .subquery()
    )
    pools = func.max(numbered.c.pool_number).over(partition_by=numbered.c.deployment)
    deployments = func.max(numbered.c.deployment_number).over()
    rotated = select(
        numbered.c.uid,
        numbered.c.deployment,
        numbered.c.turn,
        ((numbered.c.deployment_number + served) % deployments).label("deployment_turn"),
        # One pool on for each round of the deployments: else both would go in step.
        ((numbered.c.pool_number + literal(served) // deployments) % pools).label("pool_turn"),
    ).subquery()
    in_deployment = func.row_number().over(
        partition_by=rotated.c.deployment, order_by=[rotated.c.turn, rotated.c.pool_turn]
    )
    turns = select(rotated.c.uid, rotated.c.deployment_turn, in_deployment.label("turn")).subquery()
    return select(turns.c.uid).order_by(turns.c.turn, turns.c.deployment_turn).limit(most)
