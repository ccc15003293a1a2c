"""Alembic's entry: the connection is handed in by `database.py`."""

from alembic import context

from tango_cloud.core.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
context.run_migrations()
