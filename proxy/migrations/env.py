"""How alembic reaches the database. Run by proxy.db.upgrade, not by hand."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from memory import planner, sql
from proxy import db

url = str(context.config.attributes["url"]).replace("+aiosqlite", "").replace("+asyncpg", "+psycopg")
engine = sa.create_engine(url, poolclass=sa.NullPool)
with engine.connect() as connection:
    if engine.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        connection.exec_driver_sql("PRAGMA busy_timeout=30000")
        connection.commit()
    context.configure(
        connection=connection,
        target_metadata=[sql.metadata, db.metadata],
        render_as_batch=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()
    if engine.dialect.name == "sqlite" and planner.tell(connection, planner.USUAL):
        connection.commit()
engine.dispose()
