"""Machines on the books. Every change is one transaction, and leaves an event."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    String,
    and_,
    bindparam,
    case,
    cast,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from tango_cloud.core.ledger import buckets
from tango_cloud.core.ledger.database import Database
from tango_cloud.core.ledger.schema import events, machines, waves
from tango_cloud.core.lifecycle import Reason, State, sources
from tango_cloud.core.model import Event, Machine, MachineKey, Rate, Shape, WaveState

Clock = Callable[[], float]
FIRST_OWN_ID = 100_000
"""Ids for machines without a Tango start here: Tango itself uses 1000 to 99999."""


def new_uid() -> str:
    """A machine's or wave's unique name: 12 hexadecimal digits."""
    return secrets.token_hex(6)


class Machines:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def request(
        self, key: MachineKey, provider: str, shape: Shape, lifetime: float
    ) -> tuple[Machine, bool]:
        """The live machine of `key`, and whether it is new: written down now as requested.

        `lifetime` is in seconds. Idempotent across threads and processes.
        """
        while True:
            found = self.live(key)
            if found is not None:
                return found, False
            try:
                with self._database.write() as connection:
                    return self._insert(connection, key, provider, shape, lifetime), True
            except IntegrityError:
                continue  # somebody else asked between the two statements

    def request_next(
        self, deployment: str, name: str, provider: str, shape: Shape, lifetime: float
    ) -> Machine:
        """A new machine under an id that no live machine has, from `FIRST_OWN_ID` on."""
        while True:
            try:
                with self._database.write() as connection:
                    top = connection.execute(
                        select(func.max(machines.c.id)).where(machines.c.deployment == deployment)
                    ).scalar()
                    key = MachineKey(deployment, max(FIRST_OWN_ID, (top or 0) + 1), name)
                    return self._insert(connection, key, provider, shape, lifetime)
            except IntegrityError:
                continue

    def live(self, key: MachineKey) -> Machine | None:
        """The machine that bears this identity now."""
        with self._database.read() as connection:
            row = connection.execute(_LIVE, _identity(key)).first()
        return _machine(row) if row else None

    def last(self, key: MachineKey) -> Machine | None:
        """The machine that bears or last bore this identity."""
        with self._database.read() as connection:
            row = connection.execute(_LAST, _identity(key)).first()
        return _machine(row) if row else None

    def get(self, uid: str) -> Machine | None:
        rows = self._select(machines.c.uid == uid)
        return rows[0] if rows else None

    def all_live(self, deployment: str) -> Sequence[Machine]:
        return self._select(machines.c.deployment == deployment, machines.c.state != State.GONE)

    def providers(self, deployment: str) -> Sequence[str]:
        """Where the deployment has machines, or is about to have."""
        with self._database.read() as connection:
            found = connection.execute(
                select(machines.c.provider)
                .where(machines.c.deployment == deployment, machines.c.state != State.GONE)
                .distinct()
                .order_by(machines.c.provider)
            )
            return list(found.scalars())

    def places(self, key: MachineKey) -> Sequence[str]:
        """The providers that machines of this identity were ever asked from."""
        with self._database.read() as connection:
            return list(connection.execute(_PLACES, _identity(key)).scalars())

    def of_wave(self, wave: str) -> Sequence[Machine]:
        return self._select(machines.c.wave == wave)

    def waiting(self, deployment: str) -> Sequence[str]:
        """The providers of all intents that no wave has claimed and that may be, once for each."""
        with self._database.read() as connection:
            found = connection.execute(
                select(machines.c.provider).where(
                    machines.c.deployment == deployment,
                    machines.c.state == State.REQUESTED,
                    machines.c.not_before <= self._clock(),
                )
            ).scalars()
            return list(found)

    def next_due(self, deployment: str, rates: Mapping[str, Rate]) -> float | None:
        """When the first unclaimed intent may be claimed, in seconds since the epoch.

        `rates` are those of the providers that have one.
        """
        now = self._clock()
        with self._database.read() as connection:
            waiting = connection.execute(
                select(
                    machines.c.provider,
                    func.min(machines.c.not_before).label("first"),
                    func.sum(case((machines.c.not_before <= now, 1), else_=0)).label("due"),
                )
                .where(machines.c.deployment == deployment, machines.c.state == State.REQUESTED)
                .group_by(machines.c.provider)
            ).all()
            moments = []
            for provider, first, due in waiting:
                rate = rates.get(provider)
                if rate is not None and due:
                    first = max(first, buckets.ready_at(connection, provider, rate, due, now))
                moments.append(first)
            return min(moments, default=None)

    def claim(
        self, deployment: str, provider: str, wave: str, owner: str, rate: Rate | None = None
    ) -> Sequence[Machine]:
        """Put every unclaimed intent into a new wave of `owner`, or with `rate` the oldest, as many
        as the cloud lets us ask for now.

        Nobody else gets any of them. The wave is on the books if there were any.
        """
        now = self._clock()
        waiting: list[ColumnElement[bool]] = [
            machines.c.deployment == deployment,
            machines.c.provider == provider,
            machines.c.state == State.REQUESTED,
            machines.c.not_before <= now,
        ]
        with self._database.write() as connection:
            if rate is not None:
                oldest = select(machines.c.uid).where(*waiting).order_by(machines.c.created_at)
                uids = connection.execute(oldest).scalars().all()
                count = buckets.allowed(connection, provider, rate, len(uids), now)
                waiting.append(machines.c.uid.in_(uids[:count]))
            rows = connection.execute(
                update(machines)
                .where(*waiting)
                .values(state=State.CREATING, wave=wave, changed_at=now)
                .returning(machines)
            ).all()
            claimed = [_machine(row) for row in rows]
            if claimed and rate is not None:
                buckets.take(connection, provider, rate, len(claimed), now)
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
                self._note(connection, claimed, State.CREATING, f"wave {wave}")
            return claimed

    def move(
        self,
        uid: str,
        target: State,
        reason: Reason = Reason.NONE,
        detail: str = "",
        **columns: Any,
    ) -> Machine | None:
        """Move a machine along the life cycle; None when it may not (any more) go there."""
        with self._database.write() as connection:
            return self._move(connection, uid, target, reason, detail, columns)

    def lease(self, key: MachineKey) -> Machine | None:
        """ready → leased, for the machine that bears this identity now; None when it is not ready.

        A machine's story is about the machine, not about its jobs: this leaves no event.
        """
        with self._database.write() as connection:
            row = connection.execute(_LEASE, _identity(key) | {"now": self._clock()}).first()
        return _machine(row) if row else None

    def unlease(self, key: MachineKey) -> None:
        """leased → ready, if it still is leased."""
        with self._database.write() as connection:
            connection.execute(_UNLEASE, _identity(key) | {"now": self._clock()})

    def supersede(
        self,
        machine: Machine,
        *,
        reason: Reason,
        detail: str,
        provider: str,
        offer: int,
        delay: float = 0.0,
    ) -> Machine | None:
        """Give a machine up and request the same identity anew, in one transaction.

        The new one may be claimed after `delay` seconds. None when the old one is being destroyed
        or gone: then nobody wants it any more.
        """
        with self._database.write() as connection:
            row = connection.execute(
                select(machines.c.state).where(machines.c.uid == machine.uid)
            ).scalar()
            if row in (None, State.DESTROYING, State.GONE):
                return None
            self._move(connection, machine.uid, State.GONE, reason, detail, {})
            return self._insert(
                connection,
                machine.key,
                provider,
                machine.shape,
                machine.expires_at - machine.created_at,
                attempt=machine.attempt + 1,
                offer=offer,
                delay=delay,
            )

    def record(self, uid: str, **columns: Any) -> Machine | None:
        """Note facts about a machine without moving it."""
        with self._database.write() as connection:
            row = connection.execute(
                update(machines)
                .where(machines.c.uid == uid)
                .values(changed_at=self._clock(), **columns)
                .returning(machines)
            ).first()
            return _machine(row) if row else None

    def history(self, deployment: str, name: str) -> Sequence[Event]:
        """Every event of the machines whose id, uid or instance name is `name`, oldest first."""
        bearers = select(machines.c.uid).where(
            machines.c.deployment == deployment, cast(machines.c.id, String) == name
        )
        with self._database.read() as connection:
            rows = connection.execute(
                select(events)
                .where(
                    events.c.deployment == deployment,
                    or_(events.c.machine == name, events.c.uid == name, events.c.uid.in_(bearers)),
                )
                .order_by(events.c.sequence)
            )
            return [Event(r.at, r.machine, r.uid, r.event, r.detail) for r in rows]

    def _insert(
        self,
        connection: Connection,
        key: MachineKey,
        provider: str,
        shape: Shape,
        lifetime: float,
        *,
        attempt: int = 0,
        offer: int = 0,
        delay: float = 0.0,
    ) -> Machine:
        now = self._clock()
        row = connection.execute(
            insert(machines)
            .values(
                uid=new_uid(),
                deployment=key.deployment,
                id=key.id,
                name=key.name,
                state=State.REQUESTED,
                provider=provider,
                image=shape.image,
                cores=shape.cores,
                memory_mib=shape.memory_mib,
                disk_gib=shape.disk_gib,
                attempt=attempt,
                offer=offer,
                not_before=now + delay,
                created_at=now,
                changed_at=now,
                expires_at=now + lifetime,
            )
            .returning(machines)
        ).one()
        machine = _machine(row)
        self._note(connection, [machine], State.REQUESTED, f"image {shape.image}")
        return machine

    def _move(
        self,
        connection: Connection,
        uid: str,
        target: State,
        reason: Reason,
        detail: str,
        columns: dict[str, Any],
    ) -> Machine | None:
        values = {"state": target, "reason": reason, "detail": detail, "changed_at": self._clock()}
        row = connection.execute(
            update(machines)
            .where(machines.c.uid == uid, machines.c.state.in_(sources(target)))
            .values(values | columns)
            .returning(machines)
        ).first()
        if row is None:
            return None
        machine = _machine(row)
        self._note(connection, [machine], target, detail or reason)
        return machine

    def _note(
        self, connection: Connection, noted: Iterable[Machine], event: str, detail: str
    ) -> None:
        connection.execute(
            insert(events),
            [
                {
                    "at": self._clock(),
                    "deployment": machine.key.deployment,
                    "uid": machine.uid,
                    "machine": machine.key.instance_name,
                    "event": event,
                    "detail": detail,
                }
                for machine in noted
            ],
        )

    def _select(self, *conditions: Any) -> list[Machine]:
        with self._database.read() as connection:
            rows = connection.execute(
                select(machines).where(*conditions).order_by(machines.c.created_at)
            )
            return [_machine(row) for row in rows]


# These run for each job. They are built once, because building costs as much as running.
_OF_KEY = and_(
    machines.c.deployment == bindparam("bearer_deployment"),
    machines.c.id == bindparam("bearer_id"),
    machines.c.name == bindparam("bearer_name"),
)
_LIVE = select(machines).where(_OF_KEY, machines.c.state != State.GONE)
_LEASE = (
    update(machines)
    .where(_OF_KEY, machines.c.state == State.READY)
    .values(state=State.LEASED, changed_at=bindparam("now"))
    .returning(machines)
)
_UNLEASE = (
    update(machines)
    .where(_OF_KEY, machines.c.state == State.LEASED)
    .values(state=State.READY, changed_at=bindparam("now"))
)
_PLACES = select(machines.c.provider).where(_OF_KEY).distinct().order_by(machines.c.provider)
_LAST = select(machines).where(_OF_KEY).order_by(machines.c.created_at.desc()).limit(1)


def _identity(key: MachineKey) -> dict[str, Any]:
    return {
        "bearer_deployment": key.deployment,
        "bearer_id": key.id,
        "bearer_name": key.name,
    }


def _machine(row: Row[Any]) -> Machine:
    return Machine(
        uid=row.uid,
        key=MachineKey(row.deployment, row.id, row.name),
        state=State(row.state),
        reason=Reason(row.reason),
        detail=row.detail,
        provider=row.provider,
        shape=Shape(row.image, row.cores, row.memory_mib, row.disk_gib),
        attempt=row.attempt,
        offer=row.offer,
        wave=row.wave,
        instance_id=row.instance_id,
        address=row.address,
        port=row.port,
        username=row.username,
        host_key=row.host_key,
        host_key_next=row.host_key_next,
        created_at=row.created_at,
        changed_at=row.changed_at,
        expires_at=row.expires_at,
    )
