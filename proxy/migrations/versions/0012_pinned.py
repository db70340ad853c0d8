"""pinned memories are found without looking through their cube

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
_PINNED = sa.text("pinned = 1")


def upgrade() -> None:
    op.create_index("memories_pinned", "memories", ["cube"], sqlite_where=_PINNED, postgresql_where=_PINNED)
