"""The ledger: what was asked for and what became of it, shared by every process of a deployment.

SQLite by default, any database of SQLAlchemy's by URL. Every claim is one atomic statement. The
ledger may be lost: the cloud's tags are the truth.
"""

from __future__ import annotations

import time
from pathlib import Path

from tango_cloud.core.ledger.buckets import Buckets
from tango_cloud.core.ledger.clients import Clients
from tango_cloud.core.ledger.database import open_database
from tango_cloud.core.ledger.intents import Intents
from tango_cloud.core.ledger.machines import Machines
from tango_cloud.core.ledger.records import Clock, new_uid
from tango_cloud.core.ledger.waves import Owners, Waves, process_started

__all__ = [
    "Buckets",
    "Clients",
    "Clock",
    "Intents",
    "Ledger",
    "Machines",
    "Owners",
    "Waves",
    "new_uid",
    "process_started",
]


class Ledger:
    """The books of all deployments in one database. Safe for many threads and processes."""

    def __init__(self, url: str, lock_dir: Path, clock: Clock = time.time) -> None:
        """Open the ledger at `url`. Raises ConfigurationError when that cannot be done."""
        self._database = open_database(url, lock_dir)
        self.machines = Machines(self._database, clock)
        self.intents = Intents(self._database, clock)
        self.waves = Waves(self._database, clock)
        self.owners = Owners(self._database, clock)
        self.buckets = Buckets(self._database, clock)
        self.clients = Clients(self._database, clock)

    def close(self) -> None:
        self._database.close()
