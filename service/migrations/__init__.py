"""The database's schema, step by step (Alembic). Applied by `service.storage.database` at start."""
