"""cubes

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "edges",
        sa.Column("cube", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("cube", "source", "kind", "target"),
    )
    with op.batch_alter_table("edges", schema=None) as batch_op:
        batch_op.create_index("edges_target", ["cube", "target"], unique=False)

    op.create_table(
        "embedders",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "grants",
        sa.Column("cube", sa.String(), nullable=False),
        sa.Column("principal", sa.String(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("granted_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("cube", "principal"),
    )
    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.create_index("grants_principal", ["principal"], unique=False)

    op.create_table(
        "nodes",
        sa.Column("cube", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("cube", "id"),
    )
    with op.batch_alter_table("nodes", schema=None) as batch_op:
        batch_op.create_index("nodes_kind", ["cube", "kind"], unique=False)

    op.create_table(
        "receipts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("cube", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("asked_at", sa.Float(), nullable=False),
        sa.Column("done_at", sa.Float(), nullable=True),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("receipts", schema=None) as batch_op:
        batch_op.create_index("receipts_cube", ["cube"], unique=False)

    with op.batch_alter_table("cubes", schema=None) as batch_op:
        batch_op.add_column(sa.Column("status", sa.String(), server_default="active", nullable=False))
        batch_op.add_column(sa.Column("archived_at", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("quota", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("ttl_s", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("reflected_rev", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("linked_rev", sa.Integer(), server_default="0", nullable=False))
