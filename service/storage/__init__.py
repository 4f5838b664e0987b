"""What the service remembers, in SQLite or PostgreSQL: a module for each kind of thing, all over one `Database`."""
