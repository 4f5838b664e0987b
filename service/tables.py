"""The database's tables. `migrations/` makes them; a test compares the two."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite forgets time zones, so they are put back when reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Refuse moments without a time zone; store the others in UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Moments come back in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

# Every artifact that has ever been served: an inspection can be explained and drawn when its file is gone.
ARTIFACTS = Table(
    "artifacts",
    METADATA,
    Column("category", String(64), primary_key=True),
    Column("version", String(12), primary_key=True),
    Column("manifest", Text, nullable=False),  # its canonical JSON, byte for byte
    Column("first_seen_at", UtcDateTime, nullable=False),
)

# Append-only: a category's last row names its active version. A category without a row uses its newest file.
ACTIVATIONS = Table(
    "activations",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("category", String(64), nullable=False),
    Column("version", String(12), nullable=False),
    Column("activated_at", UtcDateTime, nullable=False),
    ForeignKeyConstraint(["category", "version"], ["artifacts.category", "artifacts.version"]),
)

INSPECTIONS = Table(
    "inspections",
    METADATA,
    Column("id", Uuid, primary_key=True),  # version 7: sorts by time
    Column("category", String(64), nullable=False),
    Column("version", String(12), nullable=False),
    Column("serial", String(128)),
    Column("station", String(128)),
    Column("verdict", String(4), nullable=False),
    Column("score", Double, nullable=False),
    Column("threshold", Double, nullable=False),
    Column("p_value", Double, nullable=False),
    Column("regions", JSON, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("image_sha256", String(64), nullable=False),
    Column("image_media_type", String(64), nullable=False),
    Column("image_kept", Boolean, nullable=False),
    Column("map", LargeBinary, nullable=False),  # float16, little-endian, row by row
    Column("map_height", Integer, nullable=False),
    Column("map_width", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("durations", JSON, nullable=False),
    ForeignKeyConstraint(["category", "version"], ["artifacts.category", "artifacts.version"]),
    Index(None, "serial"),
)
