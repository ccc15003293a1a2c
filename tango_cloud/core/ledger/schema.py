"""The ledger's tables. Times are seconds since the epoch, as floats: every database keeps them."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, text

metadata = MetaData()

machines = Table(
    "machines",
    metadata,
    Column("uid", String(12), primary_key=True),
    Column("deployment", String, nullable=False),
    Column("id", Integer, nullable=False),
    Column("name", String, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(32), nullable=False, default=""),
    Column("detail", Text, nullable=False, default=""),
    Column("provider", String, nullable=False),
    Column("image", String, nullable=False),
    Column("cores", Integer),
    Column("memory_mib", Integer),
    Column("disk_gib", Integer),
    Column("attempt", Integer, nullable=False, default=0),
    Column("offer", Integer, nullable=False, default=0),
    Column("not_before", Float, nullable=False, default=0.0),
    Column("granted", Boolean, nullable=False, default=False),
    Column("holder", String(12), nullable=False, default=""),
    Column("wave", String(12), nullable=False, default=""),
    Column("instance_id", String, nullable=False, default=""),
    Column("address", String, nullable=False, default=""),
    Column("port", Integer, nullable=False, default=0),
    Column("username", String, nullable=False, default=""),
    Column("host_key", Text, nullable=False, default=""),
    Column("host_key_next", Text, nullable=False, default=""),
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)
# One machine of an identity at a time: this, not our code, makes initializeVM idempotent.
Index(
    "one_live_machine",
    machines.c.deployment,
    machines.c.id,
    machines.c.name,
    unique=True,
    sqlite_where=text("state <> 'gone'"),
    postgresql_where=text("state <> 'gone'"),
)
Index("machines_by_state", machines.c.deployment, machines.c.state)
Index("machines_by_wave", machines.c.wave)

waves = Table(
    "waves",
    metadata,
    Column("wave", String(12), primary_key=True),
    Column("deployment", String, nullable=False),
    Column("provider", String, nullable=False),
    Column("state", String(16), nullable=False),
    Column("owner", String(12), nullable=False),
    Column("terraform_pid", Integer, nullable=False, default=0),
    Column("terraform_started", Float, nullable=False, default=0.0),
    Column("created_at", Float, nullable=False),
)

owners = Table(
    "owners",
    metadata,
    Column("owner", String(12), primary_key=True),
    Column("host", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started", Float, nullable=False),
    Column("heartbeat_at", Float, nullable=False),
)

buckets = Table(
    "buckets",
    metadata,
    Column("name", String, primary_key=True),
    Column("tokens", Float, nullable=False),
    Column("filled_at", Float, nullable=False),
)

clients = Table(
    "clients",
    metadata,
    Column("deployment", String, primary_key=True),
    Column("public_key", String, primary_key=True),
    Column("host", String, nullable=False),
    Column("seen_at", Float, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("deployment", String, nullable=False),
    Column("uid", String(12), nullable=False),
    Column("machine", String, nullable=False),
    Column("event", String(32), nullable=False),
    Column("detail", Text, nullable=False, default=""),
)
Index("events_by_machine", events.c.uid)
