"""The client keys of a deployment's hosts."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "clients",
        sa.Column("deployment", sa.String, primary_key=True),
        sa.Column("public_key", sa.String, primary_key=True),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
    )
