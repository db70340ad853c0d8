"""what keys may use, and what they have used

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
_COUNTS = ("requests", "unknown", "prompt", "cached", "written", "completion", "injected")


def upgrade() -> None:
    op.add_column("keys", sa.Column("limits", sa.JSON()))
    op.create_table(
        "usage",
        *(sa.Column(name, sa.String(), nullable=False) for name in ("key", "day", "upstream", "model")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTS),
        sa.Column("cost", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("key", "day", "upstream", "model"),
    )
