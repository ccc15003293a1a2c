"""What the tables' readers and writers share: a row as a machine, and the events."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Connection, Row, insert

from tango_cloud.core.ledger.schema import events
from tango_cloud.core.lifecycle import Reason, State
from tango_cloud.core.model import Instance, Machine, MachineKey, Shape

Clock = Callable[[], float]


def new_uid() -> str:
    """A machine's or wave's unique name: 12 hexadecimal digits."""
    return secrets.token_hex(6)


def machine_of(row: Row[Any]) -> Machine:
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
        holder=row.holder,
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


def note(
    connection: Connection, at: float, noted: Iterable[Machine | Instance], event: str, detail: str
) -> None:
    """Add a line to each machine's story, in the transaction that makes it true."""
    connection.execute(
        insert(events),
        [
            {
                "at": at,
                "deployment": machine.key.deployment,
                "uid": machine.uid,
                "machine": machine.key.instance_name,
                "event": event,
                "detail": detail,
            }
            for machine in noted
        ],
    )
