"""The program's own tables (principals, keys, sessions, injected blocks, audit) and bringing the database up to date."""

from __future__ import annotations

import fcntl
import secrets
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import Column, Float, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.ext.asyncio import AsyncConnection

from memory.sql import Database, Permit
from proxy.config import Config

metadata = MetaData()

principals = Table(
    "principals",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("created_at", Float, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("principal", String, sa.ForeignKey("principals.id"), nullable=False),
    Column("name", String, nullable=False),
    Column("digest", String, nullable=False, unique=True),  # SHA-256 of the key; the key itself is never stored
    Column("display", String, nullable=False),  # "sk-mem-abcd…wxyz"
    Column("scopes", sa.JSON, nullable=False),
    Column("models", sa.JSON),  # allow-list of model name patterns; null = all
    Column("limits", sa.JSON),  # see config.Quota; null = what the configuration says
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("replaces", String),
    Index("keys_principal", "principal"),
)

usage = Table(  # what keys have used, see proxy/usage.py
    "usage",
    metadata,
    Column("key", String, primary_key=True),
    Column("day", String, primary_key=True),  # in UTC, as 2026-11-23
    Column("upstream", String, primary_key=True),
    Column("model", String, primary_key=True),
    *(
        Column(name, sa.BigInteger, nullable=False)
        for name in ("requests", "unknown", "prompt", "cached", "written", "completion", "injected")
    ),
    Column("cost", Float, nullable=False),
)

owed = Table(  # answers made in the background whose usage is not known yet, see proxy/owed.py
    "owed",
    metadata,
    Column("id", String, primary_key=True),
    Column("key", String, nullable=False),
    Column("upstream", String, nullable=False),
    Column("model", String, nullable=False),
    Column("at", Float, nullable=False),
)

sessions = Table(  # the stable block with which a session began
    "sessions",
    metadata,
    Column("cube", String, primary_key=True),
    Column("session", String, primary_key=True),
    Column("started_at", Float, nullable=False),
    Column("stable", Text, nullable=False),
    Column("memories", sa.JSON, nullable=False),
    Column("rev", Integer, nullable=False),
)

blocks = Table(  # what was injected at which place, to be put there again byte for byte
    "blocks",
    metadata,
    Column("cube", String, primary_key=True),
    Column("anchor", String, primary_key=True),
    Column("session", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("recall", Text, nullable=False),
    Column("memories", sa.JSON, nullable=False),
    Column("rev", Integer, nullable=False, server_default="0"),
    Index("blocks_session", "cube", "session"),
)

links = Table(  # where a conversation stands whose history is at the upstream: by its newest answer's id, or its own
    "links",
    metadata,
    Column("cube", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("session", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("position", String, nullable=False),
    Column("here", String, nullable=False),
    Column("asked", Text, nullable=False),  # redacted, and only while tools are called or the answer is being made
    Column("seen", sa.JSON, nullable=False),
)

objects = Table(  # whose is what the upstreams keep for us (responses, files …): all keys share the account there
    "objects",
    metadata,
    Column("id", String, primary_key=True),
    Column("principal", String, nullable=False),
    Column("upstream", String, nullable=False),
    Column("at", Float, nullable=False),
)

responses = Table(  # responses that no upstream keeps, see proxy/kept.py
    "responses",
    metadata,
    Column("id", String, primary_key=True),
    Column("principal", String, nullable=False),
    Column("cube", String, nullable=False),
    Column("session", String, nullable=False),
    Column("turn", String, nullable=False),  # the key of the turn it was recorded as; empty: of none
    Column("request", String, nullable=False),
    Column("previous", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("held_until", Float),  # by the process that is making it; null: it has ended
    Column("size", sa.BigInteger, nullable=False),
    Column("input", sa.LargeBinary, nullable=False),  # JSON: the items of the request alone
    Column("response", sa.LargeBinary, nullable=False),  # JSON: as it was answered
    Index("responses_cube", "cube"),
    Index("responses_at", "at"),
)

forecasts = Table(  # what is foreseen for a cube's next session
    "forecasts",
    metadata,
    Column("cube", String, primary_key=True),
    Column("made_at", Float, nullable=False),
    Column("rev", Integer, nullable=False),
    Column("arrives_at", Float),  # when it is expected; null: no habit shows
    Column("arrives", Float, nullable=False),
    Column("foreseen", sa.JSON, nullable=False),  # [[memory, chance, {signal: share}], …]
    Index("forecasts_arrives", "arrives_at"),
    Index("forecasts_made", "made_at"),
)

heads = Table(  # what chats of a cube begin with: model, leading messages, tools; see proxy/heads.py
    "heads",
    metadata,
    Column("cube", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("model", String, nullable=False),
    Column("messages", sa.JSON, nullable=False),
    Column("tools", sa.JSON, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("since", Float, nullable=False),
    Column("used_at", Float, nullable=False),
    Column("tokens", Integer, nullable=False),  # of its state when it was last built; 0: never
    Column("bytes", sa.BigInteger, nullable=False),
)

slot_files = (
    Table(  # states that lie with a llama-server, see proxy/upstreams/slot_files.py; `owner` is a cube, and may be gone
        "slot_files",
        metadata,
        Column("upstream", String, primary_key=True),
        Column("name", String, primary_key=True),
        Column("owner", String, nullable=False),
        Column("sort", String, nullable=False),
        Column("key", String, nullable=False),
        Column("tokens", Integer, nullable=False),
        Column("bytes", sa.BigInteger, nullable=False),
        Column("created", Float, nullable=False),
        Column("used_at", Float, nullable=False),
        Column("uses", Integer, nullable=False),
        Index("slot_files_owner", "upstream", "owner"),
    )
)

licences = Table(  # executors that may write; see proxy/licence.py
    "licences",
    metadata,
    Column("executor", String, primary_key=True),
)

audit = Table(
    "audit",
    metadata,
    Column("id", String, primary_key=True),
    Column("at", Float, nullable=False),
    Column("principal", String, nullable=False),
    Column("action", String, nullable=False),
    Column("target", String, nullable=False),
    Index("audit_at", "at"),
)

settings = Table(  # what all processes of an installation share
    "settings",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", Text, nullable=False),
)


def open_database(config: Config, permit: Permit | None = None, *, gives_way: bool = False) -> Database:
    """The metadata database. Its tables must be there (see `upgrade`)."""
    return Database(config.database_url, permit=permit, gives_way=gives_way)


def upgrade(config: Config) -> None:
    """Make or migrate every table; safe when several processes start at once."""
    config.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (config.folder / ".upgrade.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        settings = AlembicConfig()
        settings.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        settings.attributes["url"] = config.database_url
        command.upgrade(settings, "head")


async def shared_secret(database: Database) -> bytes:
    """The installation's secret, made at the first call; 32 bytes."""

    async def work(connection: AsyncConnection) -> str:
        known = (await connection.execute(sa.select(settings.c.value).where(settings.c.name == "secret"))).first()
        if known is not None:
            return str(known[0])
        made = secrets.token_hex(32)
        await connection.execute(sa.insert(settings).values(name="secret", value=made))
        return made

    return bytes.fromhex(await database.write(work))
