"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "machines",
        sa.Column("uid", sa.String(12), primary_key=True),
        sa.Column("deployment", sa.String, nullable=False),
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("provider", sa.String, nullable=False),
        sa.Column("image", sa.String, nullable=False),
        sa.Column("cores", sa.Integer),
        sa.Column("memory_mib", sa.Integer),
        sa.Column("disk_gib", sa.Integer),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("offer", sa.Integer, nullable=False),
        sa.Column("not_before", sa.Float, nullable=False),
        sa.Column("wave", sa.String(12), nullable=False),
        sa.Column("instance_id", sa.String, nullable=False),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("username", sa.String, nullable=False),
        sa.Column("host_key", sa.Text, nullable=False),
        sa.Column("host_key_next", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
    )
    op.create_index(
        "one_live_machine",
        "machines",
        ["deployment", "id", "name"],
        unique=True,
        sqlite_where=sa.text("state <> 'gone'"),
        postgresql_where=sa.text("state <> 'gone'"),
    )
    op.create_index("machines_by_state", "machines", ["deployment", "state"])
    op.create_index("machines_by_wave", "machines", ["wave"])
    op.create_table(
        "waves",
        sa.Column("wave", sa.String(12), primary_key=True),
        sa.Column("deployment", sa.String, nullable=False),
        sa.Column("provider", sa.String, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(12), nullable=False),
        sa.Column("terraform_pid", sa.Integer, nullable=False),
        sa.Column("terraform_started", sa.Float, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "owners",
        sa.Column("owner", sa.String(12), primary_key=True),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started", sa.Float, nullable=False),
        sa.Column("heartbeat_at", sa.Float, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("deployment", sa.String, nullable=False),
        sa.Column("uid", sa.String(12), nullable=False),
        sa.Column("machine", sa.String, nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("events_by_machine", "events", ["uid"])
