"""The hosts of a deployment on the books: by which keys they log in."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from sqlalchemy import delete, insert, select

from tango_cloud.core.ledger.database import Database
from tango_cloud.core.ledger.records import Clock
from tango_cloud.core.ledger.schema import clients

_DAY = 24 * 3600.0
_KEPT_SECONDS = 30 * _DAY
"""A host that nobody worked on for this long may not log in to new machines any more."""


class Clients:
    """The public client keys in use. Every new machine lets all of them in, so that any host of a
    deployment can use what another has made."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def enter(self, deployment: str, public_key: str) -> None:
        """Note that this host works for the deployment, by this key. Written once a day."""
        now = self._clock()
        known = (clients.c.deployment == deployment, clients.c.public_key == public_key)
        with self._database.read() as connection:
            seen = connection.execute(select(clients.c.seen_at).where(*known)).scalar()
        if seen is not None and now - seen < _DAY:
            return
        with self._database.write() as connection:
            connection.execute(delete(clients).where(*known))
            connection.execute(
                insert(clients).values(
                    deployment=deployment,
                    public_key=public_key,
                    host=socket.gethostname(),
                    seen_at=now,
                )
            )

    def keys(self, deployment: str) -> Sequence[str]:
        """Of every host that has worked for the deployment lately."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(clients.c.public_key)
                .where(
                    clients.c.deployment == deployment,
                    clients.c.seen_at > self._clock() - _KEPT_SECONDS,
                )
                .order_by(clients.c.public_key)
            )
            return list(rows.scalars())
