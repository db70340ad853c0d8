"""responses that no upstream keeps

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    names = ("principal", "cube", "session", "turn", "request", "previous")
    op.create_table(
        "responses",
        sa.Column("id", sa.String(), primary_key=True),
        *(sa.Column(name, sa.String(), nullable=False) for name in names),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("held_until", sa.Float()),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("input", sa.LargeBinary(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
    )
    op.create_index("responses_cube", "responses", ["cube"])
    op.create_index("responses_at", "responses", ["at"])
