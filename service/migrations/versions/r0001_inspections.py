"""Artifacts that were served, which of them are active, and inspections."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "artifacts",
        sa.Column("category", sa.String(64), nullable=False),
        sa.Column("version", sa.String(12), nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("category", "version", name="pk_artifacts"),
    )
    op.create_table(
        "activations",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("category", sa.String(64), nullable=False),
        sa.Column("version", sa.String(12), nullable=False),
        sa.Column("activated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_activations"),
        sa.ForeignKeyConstraint(
            ["category", "version"],
            ["artifacts.category", "artifacts.version"],
            name="fk_activations_artifacts",
        ),
    )
    op.create_table(
        "inspections",
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
        sa.Column("map", sa.LargeBinary, nullable=False),
        sa.Column("map_height", sa.Integer, nullable=False),
        sa.Column("map_width", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("durations", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_inspections"),
        sa.ForeignKeyConstraint(
            ["category", "version"],
            ["artifacts.category", "artifacts.version"],
            name="fk_inspections_artifacts",
        ),
    )
    op.create_index("ix_inspections_serial", "inspections", ["serial"])


def downgrade() -> None:
    """Drop the tables, with every inspection in them."""
    op.drop_table("inspections")
    op.drop_table("activations")
    op.drop_table("artifacts")
