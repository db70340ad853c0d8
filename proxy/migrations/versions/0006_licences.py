"""which executors may write

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("licences", sa.Column("executor", sa.String(), nullable=False), sa.PrimaryKeyConstraint("executor"))
