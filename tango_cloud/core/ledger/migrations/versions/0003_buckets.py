"""How many machines may be asked of each cloud now."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "buckets",
        sa.Column("provider", sa.String, primary_key=True),
        sa.Column("tokens", sa.Float, nullable=False),
        sa.Column("filled_at", sa.Float, nullable=False),
    )
