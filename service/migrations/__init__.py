"""The database's schema, step by step (Alembic). Applied by `service.database` at start."""
