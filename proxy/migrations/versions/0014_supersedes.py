"""what a memory has replaced is found without looking through its cube

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
_SOME = sa.text("supersedes IS NOT NULL")


def upgrade() -> None:
    op.create_index(
        "memories_supersedes", "memories", ["cube", "supersedes"], sqlite_where=_SOME, postgresql_where=_SOME
    )
