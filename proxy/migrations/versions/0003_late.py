"""vectors of word pieces

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("vectors", schema=None) as batch_op:
        batch_op.add_column(sa.Column("late", sa.LargeBinary(), nullable=True))
        batch_op.add_column(sa.Column("width", sa.Integer(), server_default="0", nullable=False))
