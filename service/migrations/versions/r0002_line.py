"""For a whole line: numbered inspections with their maps apart, keys, audit, thresholds, kept pictures."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_CARRIED = (
    "id, category, version, serial, station, verdict, score, threshold, p_value, regions, width, height, "
    "image_sha256, image_media_type, image_kept, created_at, durations"
)


def upgrade() -> None:
    """Add the new tables, and move the inspections into numbered rows."""
    _number_inspections()
    with op.batch_alter_table("activations") as activations:
        activations.add_column(sa.Column("activated_by", sa.String(128), nullable=False, server_default=""))
    with op.batch_alter_table("activations") as activations:
        activations.alter_column("activated_by", server_default=None)
    _of_artifact(
        "thresholds",
        sa.Column("value", sa.Double),
        sa.Column("false_reject_rate", sa.Double),
        sa.Column("set_at", _MOMENT, nullable=False),
        sa.Column("set_by", sa.String(128), nullable=False),
    )
    op.create_table(
        "pictures",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("kept_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_pictures"),
    )
    op.create_index("ix_pictures_kept_at", "pictures", ["kept_at"])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("rate_limit", sa.Double),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT),
        sa.Column("revoked_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("name", name="uq_api_keys_name"),
        sa.UniqueConstraint("sha256", name="uq_api_keys_sha256"),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(256), nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )


def _of_artifact(name: str, *columns: sa.Column) -> None:
    """A table of numbered rows about one version of a category."""
    op.create_table(
        name,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("category", sa.String(64), nullable=False),
        sa.Column("version", sa.String(12), nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("id", name=f"pk_{name}"),
        sa.ForeignKeyConstraint(
            ["category", "version"], ["artifacts.category", "artifacts.version"], name=f"fk_{name}_artifacts"
        ),
    )


def _number_inspections() -> None:
    op.drop_index("ix_inspections_serial", "inspections")
    op.rename_table("inspections", "inspections_before")
    if op.get_bind().dialect.name == "postgresql":  # names of constraints are shared by all of its tables
        op.execute("ALTER TABLE inspections_before RENAME CONSTRAINT pk_inspections TO pk_inspections_before")
    op.create_table(
        "inspections",
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("category", sa.String(64), nullable=False),
        sa.Column("version", sa.String(12), nullable=False),
        sa.Column("serial", sa.String(128)),
        sa.Column("station", sa.String(128)),
        sa.Column("verdict", sa.String(4), nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("threshold", sa.Double, nullable=False),
        sa.Column("p_value", sa.Double, nullable=False),
        sa.Column("regions", sa.JSON, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("image_sha256", sa.String(64), nullable=False),
        sa.Column("image_media_type", sa.String(64), nullable=False),
        sa.Column("image_kept", sa.Boolean, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("durations", sa.JSON, nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("submitted_by", sa.String(128), nullable=False),
        sa.Column("idempotency_key", sa.String(255)),
        sa.PrimaryKeyConstraint("number", name="pk_inspections"),
        sa.UniqueConstraint("id", name="uq_inspections_id"),
        sa.UniqueConstraint("submitted_by", "idempotency_key", name="uq_inspections_submitted_by_idempotency_key"),
        sa.ForeignKeyConstraint(
            ["category", "version"], ["artifacts.category", "artifacts.version"], name="fk_inspections_artifacts"
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "score_maps",
        sa.Column("inspection", sa.Uuid, nullable=False),
        sa.Column("values", sa.LargeBinary, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("inspection", name="pk_score_maps"),
        sa.ForeignKeyConstraint(["inspection"], ["inspections.id"], name="fk_score_maps_inspections"),
    )
    op.execute(
        f"INSERT INTO inspections ({_CARRIED}, request_id, submitted_by) "
        f"SELECT {_CARRIED}, '', '' FROM inspections_before ORDER BY created_at, id"
    )
    op.execute(
        'INSERT INTO score_maps (inspection, "values", height, width) '
        "SELECT id, map, map_height, map_width FROM inspections_before"
    )
    op.drop_table("inspections_before")
    for columns in (["serial"], ["category", "number"], ["created_at"], ["image_sha256"]):
        op.create_index(f"ix_inspections_{'_'.join(columns)}", "inspections", columns)


def downgrade() -> None:
    """There is no way back: what the new tables hold has no place in the old ones."""
    raise RuntimeError("This step has no way back: restore the backup that was made before the upgrade.")
