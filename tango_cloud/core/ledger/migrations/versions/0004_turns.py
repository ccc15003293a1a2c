"""Whose turn it is to be asked for; and a bucket for each thing that a cloud is asked."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column(
        "machines",
        sa.Column("granted", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.execute("ALTER TABLE buckets RENAME COLUMN provider TO name")
    # They are full again: what was drawn from them has long been made.
    op.execute("DELETE FROM buckets")
