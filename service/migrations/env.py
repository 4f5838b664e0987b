"""Alembic's entry point: runs the steps on the connection that `service.storage.database` hands over."""

from alembic import context

from service.storage.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,  # SQLite can, if its driver is kept from committing in between
    render_as_batch=True,  # SQLite alters tables by copying them
)
with context.begin_transaction():
    context.run_migrations()
