"""Machines on the books. Every change is one transaction, and leaves an event."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    String,
    and_,
    bindparam,
    cast,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from tango_cloud.core.ledger.database import Database
from tango_cloud.core.ledger.records import Clock, machine_of, new_uid, note
from tango_cloud.core.ledger.schema import events, machines
from tango_cloud.core.lifecycle import LIVE, Reason, State, sources
from tango_cloud.core.model import Event, Instance, Machine, MachineKey, Shape

FIRST_OWN_ID = 100_000
"""Ids for machines without a Tango start here: Tango itself uses 1000 to 99999."""


class Machines:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def request(
        self, key: MachineKey, provider: str, shape: Shape, lifetime: float, *, holder: str = ""
    ) -> tuple[Machine, bool]:
        """The live machine of `key`, and whether it is new: written down now as requested.

        `lifetime` is in seconds, `holder` the process without which nobody needs it. Idempotent
        across threads and processes.
        """
        while True:
            found = self.live(key)
            if found is not None:
                return found, False
            try:
                with self._database.write() as connection:
                    made = self._insert(connection, key, provider, shape, lifetime, holder=holder)
                    return made, True
            except IntegrityError:
                continue  # somebody else asked between the two statements

    def request_next(
        self,
        deployment: str,
        name: str,
        provider: str,
        shape: Shape,
        lifetime: float,
        *,
        holder: str = "",
    ) -> Machine:
        """A new machine under an id that no live machine has, from `FIRST_OWN_ID` on."""
        while True:
            try:
                with self._database.write() as connection:
                    top = connection.execute(
                        select(func.max(machines.c.id)).where(machines.c.deployment == deployment)
                    ).scalar()
                    key = MachineKey(deployment, max(FIRST_OWN_ID, (top or 0) + 1), name)
                    return self._insert(connection, key, provider, shape, lifetime, holder=holder)
            except IntegrityError:
                continue

    def live(self, key: MachineKey) -> Machine | None:
        """The machine that bears this identity now."""
        with self._database.read() as connection:
            row = connection.execute(_LIVE, _identity(key)).first()
        return machine_of(row) if row else None

    def last(self, key: MachineKey) -> Machine | None:
        """The machine that bears or last bore this identity."""
        with self._database.read() as connection:
            row = connection.execute(_LAST, _identity(key)).first()
        return machine_of(row) if row else None

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
        return machine_of(row) if row else None

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
        counted: bool = True,
        among: Collection[State] = LIVE - {State.DESTROYING},
    ) -> Machine | None:
        """Give a machine up and request the same identity anew, in one transaction.

        The new one may be claimed after `delay` seconds. It counts as one more attempt unless it
        was not `counted`. None when the old one is in a state that is not `among` these by now: if
        it is being destroyed or gone, nobody wants it any more.
        """
        with self._database.write() as connection:
            row = connection.execute(
                select(machines.c.state).where(machines.c.uid == machine.uid)
            ).scalar()
            if row not in among:
                return None
            self._move(connection, machine.uid, State.GONE, reason, detail, {})
            return self._insert(
                connection,
                machine.key,
                provider,
                machine.shape,
                machine.expires_at - machine.created_at,
                holder=machine.holder,
                attempt=machine.attempt + counted,
                offer=offer,
                delay=delay,
            )

    def adopt(
        self, instance: Instance, provider: str, host_key: str, host_key_next: str
    ) -> Machine | None:
        """Put a machine on the books that the cloud has and they have not: starting, until it is
        proved to answer with one of these keys. None when its identity is another machine's.
        """
        now = self._clock()
        try:
            with self._database.write() as connection:
                row = connection.execute(
                    insert(machines)
                    .values(
                        uid=instance.uid,
                        deployment=instance.key.deployment,
                        id=instance.key.id,
                        name=instance.key.name,
                        state=State.STARTING,
                        provider=provider,
                        image=instance.image,
                        wave=instance.wave,
                        instance_id=instance.instance_id,
                        address=instance.address,
                        port=instance.port,
                        username=instance.username,
                        host_key=host_key,
                        host_key_next=host_key_next,
                        created_at=instance.created.timestamp(),
                        changed_at=now,
                        expires_at=instance.expires.timestamp(),
                    )
                    .returning(machines)
                ).one()
                machine = machine_of(row)
                note(connection, now, [machine], "adopted", f"{instance.instance_id}, by its tags")
                return machine
        except IntegrityError:
            return None

    def instance_ids(
        self, uids: Collection[str], among: Collection[State] = frozenset(State)
    ) -> Mapping[str, str]:
        """The instance ids, as far as they are known (else empty), of those of these machines that
        are on the books in such a state."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(machines.c.uid, machines.c.instance_id).where(
                    machines.c.uid.in_(uids), machines.c.state.in_(among)
                )
            )
            return {row.uid: row.instance_id for row in rows}

    def record(self, uid: str, **columns: Any) -> Machine | None:
        """Note facts about a machine without moving it."""
        with self._database.write() as connection:
            row = connection.execute(
                update(machines)
                .where(machines.c.uid == uid)
                .values(changed_at=self._clock(), **columns)
                .returning(machines)
            ).first()
            return machine_of(row) if row else None

    def tell(self, instance: Instance, event: str, detail: str) -> None:
        """Add to the story of an instance what happened to it without its being on the books."""
        with self._database.write() as connection:
            note(connection, self._clock(), [instance], event, detail)

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
        holder: str = "",
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
                holder=holder,
                attempt=attempt,
                offer=offer,
                not_before=now + delay,
                created_at=now,
                changed_at=now,
                expires_at=now + lifetime,
            )
            .returning(machines)
        ).one()
        machine = machine_of(row)
        note(connection, self._clock(), [machine], State.REQUESTED, f"image {shape.image}")
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
        machine = machine_of(row)
        note(connection, self._clock(), [machine], target, detail or reason)
        return machine

    def _select(self, *conditions: Any) -> list[Machine]:
        with self._database.read() as connection:
            rows = connection.execute(
                select(machines).where(*conditions).order_by(machines.c.created_at)
            )
            return [machine_of(row) for row in rows]


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
