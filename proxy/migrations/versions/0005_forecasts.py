"""what is foreseen for a cube's next session

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "forecasts",
        sa.Column("cube", sa.String(), nullable=False),
        sa.Column("made_at", sa.Float(), nullable=False),
        sa.Column("rev", sa.Integer(), nullable=False),
        sa.Column("arrives_at", sa.Float(), nullable=True),
        sa.Column("arrives", sa.Float(), nullable=False),
        sa.Column("foreseen", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("cube"),
    )
    op.create_index("forecasts_arrives", "forecasts", ["arrives_at"])
    op.create_index("forecasts_made", "forecasts", ["made_at"])
