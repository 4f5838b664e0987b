"""The database's tables. `migrations/` makes them; a test compares the two."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
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
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
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

# Append-only: a category's last row names its active version, since when and by whom.
ACTIVATIONS = Table(
    "activations",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("category", String(64), nullable=False),
    Column("version", String(12), nullable=False),
    Column("activated_at", UtcDateTime, nullable=False),
    Column("activated_by", String(128), nullable=False),
    ForeignKeyConstraint(["category", "version"], ["artifacts.category", "artifacts.version"]),
)

# Append-only: the last row of a version says where it fails, instead of its manifest. No value: the manifest again.
THRESHOLDS = Table(
    "thresholds",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("category", String(64), nullable=False),
    Column("version", String(12), nullable=False),
    Column("value", Double),
    Column("false_reject_rate", Double),  # what the value was asked for by, if by a rate
    Column("set_at", UtcDateTime, nullable=False),
    Column("set_by", String(128), nullable=False),
    ForeignKeyConstraint(["category", "version"], ["artifacts.category", "artifacts.version"]),
)

# `number` is the order of commits: one transaction at a time adds rows, so a reader who has seen a number has seen
# all that are smaller, whatever the clock did. Listings go by it.
INSPECTIONS = Table(
    "inspections",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("id", Uuid, nullable=False),
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
    Column("created_at", UtcDateTime, nullable=False),
    Column("durations", JSON, nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("submitted_by", String(128), nullable=False),  # the API key's name; empty where there are no keys
    Column("idempotency_key", String(255)),
    ForeignKeyConstraint(["category", "version"], ["artifacts.category", "artifacts.version"]),
    UniqueConstraint("id"),
    UniqueConstraint("submitted_by", "idempotency_key"),
    Index(None, "serial"),
    Index(None, "category", "number"),
    Index(None, "created_at"),
    Index(None, "image_sha256"),
    sqlite_autoincrement=True,  # a number is never given twice
)

# Apart from the inspections: listing many of them must not read their maps.
SCORE_MAPS = Table(
    "score_maps",
    METADATA,
    Column("inspection", Uuid, ForeignKey("inspections.id"), primary_key=True),
    Column("values", LargeBinary, nullable=False),  # float16, little-endian, row by row
    Column("height", Integer, nullable=False),
    Column("width", Integer, nullable=False),
)

# The kept pictures, so that the oldest can be found without walking through the folder or bucket.
PICTURES = Table(
    "pictures",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("kept_at", UtcDateTime, nullable=False),  # the last time that it was uploaded
    Index(None, "kept_at"),
)

API_KEYS = Table(
    "api_keys",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("rate_limit", Double),  # requests a second; none: as many as it likes
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    UniqueConstraint("name"),
    UniqueConstraint("sha256"),
)

# Append-only: whatever an administrator changed, in the transaction of the change.
AUDIT = Table(
    "audit",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(64), nullable=False),  # e.g. "activate"
    Column("subject", String(256), nullable=False),  # e.g. "category bracket"
    Column("detail", JSON, nullable=False),
    Column("request_id", String(64), nullable=False),
)
