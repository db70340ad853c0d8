"""Keys: made, listed, rotated, revoked. A key is stored as its SHA-256 only and shown once.

`sk-mem-` + 32 characters of base62 + 6 of checksum, so that a mistyped key is told from an unknown one without a look-up.
"""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from memory.sql import Database
from proxy import db
from proxy.config import Quota

PREFIX = "sk-mem-"
SCOPES = ("chat", "memory:read", "memory:write", "admin", "act_as_user", "upstream_key")
DEFAULT_SCOPES = ("chat", "memory:read", "memory:write")
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is stored. `models` is an allow-list of name patterns; None means all. `limits`: 0 and None mean what the
    configuration says."""

    id: str
    principal: str
    name: str
    display: str
    scopes: tuple[str, ...]
    models: tuple[str, ...] | None
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    replaces: str | None = None
    limits: Quota | None = None

    def usable(self, now: float) -> bool:
        """Neither revoked nor expired."""
        return (self.revoked_at is None or self.revoked_at > now) and (self.expires_at is None or self.expires_at > now)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; `secret` is not kept anywhere."""

    secret: str
    key: Key


def generate() -> str:
    """A new key."""
    body = "".join(secrets.choice(_BASE62) for _ in range(32))
    return PREFIX + body + checksum(body)


def checksum(body: str) -> str:
    """CRC-32 of the random part, as six base62 digits."""
    value, out = zlib.crc32(body.encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        out = _BASE62[digit] + out
    return out


def well_formed(key: str) -> bool:
    """Whether it can be one of ours at all."""
    body = key[len(PREFIX) :]
    return key.startswith(PREFIX) and len(body) == 38 and body.isascii() and checksum(body[:32]) == body[32:]


def digest(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


_FIND = sa.select(db.keys).where(db.keys.c.digest == sa.bindparam("digest"))


class Keys:
    """The table of keys and their principals."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def create(
        self,
        name: str,
        *,
        principal: str | None = None,
        scopes: Sequence[str] = DEFAULT_SCOPES,
        models: Sequence[str] | None = None,
        expires_at: float | None = None,
        limits: Quota | None = None,
    ) -> NewKey:
        """A key for a new principal, or one more key for a known one (they share its memory).

        Raises ValueError for an unknown scope, LookupError for an unknown principal.
        """
        unknown = set(scopes) - set(SCOPES)
        if unknown:
            raise ValueError(f"unknown scope {sorted(unknown)[0]!r}; there are {', '.join(SCOPES)}")
        secret, now = generate(), self._clock()
        key = Key(
            id=f"key_{uuid.uuid4().hex[:16]}",
            principal=principal or f"pr_{uuid.uuid4().hex[:16]}",
            name=name,
            display=f"{secret[:11]}…{secret[-4:]}",
            scopes=tuple(scopes),
            models=tuple(models) if models is not None else None,
            created_at=now,
            expires_at=expires_at,
            revoked_at=None,
            limits=limits,
        )

        async def work(connection: AsyncConnection) -> None:
            if principal is None:
                await connection.execute(sa.insert(db.principals).values(id=key.principal, name=name, created_at=now))
            else:
                known = sa.select(db.principals.c.id).where(db.principals.c.id == principal)
                if (await connection.execute(known)).first() is None:
                    raise LookupError(f"no principal {principal}")
            await _insert(connection, key, secret)

        await self._database.write(work)
        return NewKey(secret, key)

    async def every(self) -> list[Key]:
        """All keys, oldest first, revoked ones too."""
        async with self._database.read() as connection:
            rows = (await connection.execute(sa.select(db.keys).order_by(db.keys.c.created_at, db.keys.c.id))).all()
        return [_key(row) for row in rows]

    async def find(self, digest_of_key: str) -> Key | None:
        """The key with this digest, whatever its state."""
        rows = await self._database.rows(_FIND, digest=digest_of_key)
        return _key(rows[0]) if rows else None

    async def rotate(self, key_id: str, *, grace_s: float = 0.0) -> NewKey:
        """A new key in place of the old one, which stops working after `grace_s`. Raises LookupError."""
        secret, now = generate(), self._clock()

        async def work(connection: AsyncConnection) -> Key:
            old = await _usable(connection, key_id, now)
            new = Key(
                id=f"key_{uuid.uuid4().hex[:16]}",
                principal=old.principal,
                name=old.name,
                display=f"{secret[:11]}…{secret[-4:]}",
                scopes=old.scopes,
                models=old.models,
                created_at=now,
                expires_at=old.expires_at,
                revoked_at=None,
                replaces=old.id,
                limits=old.limits,
            )
            await _insert(connection, new, secret)
            ends = now + grace_s if old.revoked_at is None else min(old.revoked_at, now + grace_s)
            await connection.execute(sa.update(db.keys).where(db.keys.c.id == old.id).values(revoked_at=ends))
            return new

        return NewKey(secret, await self._database.write(work))

    async def limit(self, key_id: str, limits: Quota | None) -> Key:
        """From the next request on the key has these limits; None: what the configuration says. Raises LookupError."""

        async def work(connection: AsyncConnection) -> Key:
            values = {"limits": _limits(limits)}
            await connection.execute(sa.update(db.keys).where(db.keys.c.id == key_id).values(**values))
            row = (await connection.execute(sa.select(db.keys).where(db.keys.c.id == key_id))).first()
            if row is None:
                raise LookupError(f"no key {key_id}")
            return _key(row)

        return await self._database.write(work)

    async def revoke(self, key_id: str) -> Key:
        """From the next request on the key is not accepted. Raises LookupError."""
        now = self._clock()

        async def work(connection: AsyncConnection) -> Key:
            row = (await connection.execute(sa.select(db.keys).where(db.keys.c.id == key_id))).first()
            if row is None:
                raise LookupError(f"no key {key_id}")
            await connection.execute(sa.update(db.keys).where(db.keys.c.id == key_id).values(revoked_at=now))
            return _key(row)

        return await self._database.write(work)


def _limits(limits: Quota | None) -> Any:
    return {name: value for name, value in msgspec.structs.asdict(limits).items() if value} if limits else sa.null()


async def _insert(connection: AsyncConnection, key: Key, secret: str) -> None:
    values = {name: getattr(key, name) for name in Key.__dataclass_fields__}
    values |= {"scopes": list(key.scopes), "models": list(key.models) if key.models is not None else None}
    values["limits"] = _limits(key.limits)
    await connection.execute(sa.insert(db.keys).values(**values, digest=digest(secret)))


async def _usable(connection: AsyncConnection, key_id: str, now: float) -> Key:
    row = (await connection.execute(sa.select(db.keys).where(db.keys.c.id == key_id))).first()
    if row is None or not _key(row).usable(now):
        raise LookupError(f"no usable key {key_id}")
    return _key(row)


def _key(row: sa.Row[Any]) -> Key:
    values = {name: row._mapping[name] for name in Key.__dataclass_fields__}
    values |= {
        "scopes": tuple(values["scopes"]),
        "models": tuple(values["models"]) if values["models"] is not None else None,
        "limits": msgspec.convert(values["limits"], Quota) if values["limits"] else None,
    }
    return Key(**values)
