"""Whose machines are of no use once a process is dead."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("machines", sa.Column("holder", sa.String(12), nullable=False, server_default=""))
