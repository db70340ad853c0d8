"""Keys: what is stored of them, how long they work, and who they are."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from memory.sql import Database
from proxy import db, keys
from proxy.auth import Auth, Principal, cube_of, home_cube, presented
from proxy.errors import Forbidden, ModelNotFound, Unauthorized
from proxy.keys import Keys


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def made(database: Database, clock: Clock) -> Keys:
    return Keys(database, clock)


async def accepted(made: Keys, clock: Clock, secret: str) -> bool:
    try:
        await Auth(made, clock).principal({"authorization": f"Bearer {secret}"})
    except Unauthorized:
        return False
    return True


def test_keys_differ_and_carry_their_checksum() -> None:
    some = {keys.generate() for _ in range(200)}
    assert len(some) == 200
    assert all(keys.well_formed(key) and len(key) == 45 for key in some)


def test_a_mistyped_key_is_known_without_a_look_up() -> None:
    key = keys.generate()
    for at in range(len(key)):
        other = "b" if key[at] != "b" else "c"
        assert not keys.well_formed(key[:at] + other + key[at + 1 :])
    for wrong in ("", "sk-mem-", key[:-1], key + "A", f" {key}", "sk-mem-" + "é" * 38):
        assert not keys.well_formed(wrong)


async def test_nothing_of_a_key_is_stored_but_its_digest_and_both_ends(made: Keys, database: Database) -> None:
    new = await made.create("mine")
    async with database.read() as connection:
        row = str((await connection.execute(sa.select(db.keys))).one())
    assert new.secret not in row
    assert new.secret[12:-4] not in row
    assert new.key.display == f"{new.secret[:11]}…{new.secret[-4:]}"


async def test_an_expired_key_stops_at_its_second(made: Keys, clock: Clock) -> None:
    new = await made.create("short", expires_at=clock.now + 10)
    clock.now += 9.9
    assert await accepted(made, clock, new.secret)
    clock.now += 0.1
    assert not await accepted(made, clock, new.secret)


async def test_a_rotated_key_works_until_its_grace_ends(made: Keys, clock: Clock) -> None:
    old = await made.create("mine", scopes=("chat", "admin"), models=("gpt-*",), expires_at=clock.now + 100)
    new = await made.rotate(old.key.id, grace_s=10)
    assert (new.key.principal, new.key.scopes, new.key.models) == (old.key.principal, old.key.scopes, old.key.models)
    assert (new.key.replaces, new.key.expires_at) == (old.key.id, old.key.expires_at)
    assert await accepted(made, clock, old.secret)
    assert await accepted(made, clock, new.secret)
    clock.now += 10
    assert not await accepted(made, clock, old.secret)
    assert await accepted(made, clock, new.secret)


async def test_rotating_again_never_lengthens_a_grace(made: Keys, clock: Clock) -> None:
    old = await made.create("mine")
    await made.rotate(old.key.id, grace_s=10)
    await made.rotate(old.key.id, grace_s=1000)
    clock.now += 11
    assert not await accepted(made, clock, old.secret)
    with pytest.raises(LookupError):
        await made.rotate(old.key.id)


async def test_revoking_ends_a_grace_at_once(made: Keys, clock: Clock) -> None:
    old = await made.create("mine")
    new = await made.rotate(old.key.id, grace_s=1000)
    await made.revoke(old.key.id)
    assert not await accepted(made, clock, old.secret)
    assert await accepted(made, clock, new.secret)


@pytest.mark.parametrize("action", ["rotate", "revoke"])
async def test_an_unknown_key_is_a_lookup_error(made: Keys, action: str) -> None:
    with pytest.raises(LookupError):
        await getattr(made, action)("key_unknown")


async def test_unknown_scopes_and_principals_are_refused(made: Keys) -> None:
    with pytest.raises(ValueError, match="unknown scope 'root'"):
        await made.create("x", scopes=("chat", "root"))
    with pytest.raises(LookupError, match="pr_nobody"):
        await made.create("x", principal="pr_nobody")
    assert await made.every() == []


async def test_two_keys_of_a_principal_share_a_cube_and_others_do_not(made: Keys) -> None:
    one = await made.create("one")
    two = await made.create("two", principal=one.key.principal)
    three = await made.create("three")
    assert home_cube(one.key.principal) == home_cube(two.key.principal) != home_cube(three.key.principal)


# --- who is asking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"authorization": "Bearer k"}, "k"),
        ({"authorization": "bearer   k "}, "k"),
        ({"authorization": "Basic k"}, ""),
        ({"authorization": "k"}, ""),
        ({"authorization": "Bearer ", "x-api-key": "x"}, "x"),
        ({"x-api-key": " x "}, "x"),
        ({}, ""),
    ],
)
def test_where_a_key_stands(headers: dict[str, str], key: str) -> None:
    assert presented(headers) == key


def principal(*scopes: str, models: tuple[str, ...] | None = None) -> Principal:
    return Principal("pr", "key", frozenset(scopes), models)


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ((), set()),
        (("chat",), {"chat"}),
        (("admin",), {"chat", "memory:read", "memory:write", "admin", "upstream_key"}),
        (("act_as_user",), {"act_as_user"}),
        (("upstream_key",), {"upstream_key"}),
    ],
)
def test_admin_includes_all_but_acting_as_others(scopes: tuple[str, ...], allowed: set[str]) -> None:
    who = principal(*scopes)
    assert {scope for scope in keys.SCOPES if who.has(scope)} == allowed
    for scope in set(keys.SCOPES) - allowed:
        with pytest.raises(Forbidden):
            who.require(scope)


@pytest.mark.parametrize(
    ("models", "model", "allowed"),
    [
        (None, "any", True),
        ((), "any", False),
        (("gpt-*",), "gpt-5", True),
        (("gpt-*",), "o1", False),
        (("A",), "a", False),
    ],
)
def test_the_list_of_models(models: tuple[str, ...] | None, model: str, allowed: bool) -> None:
    if allowed:
        principal(models=models).may_use(model)
    else:
        with pytest.raises(ModelNotFound):
            principal(models=models).may_use(model)


USERS = ("x-memory-user", "x-openwebui-user-id")


@pytest.mark.parametrize(
    ("headers", "body", "end_user"),
    [
        ({}, {}, ""),
        ({"x-memory-user": "ann"}, {"user": "bob"}, "ann"),
        ({"x-memory-user": " "}, {"user": "bob"}, "bob"),
        ({"x-openwebui-user-id": "ann"}, {}, "ann"),
        ({}, {"safety_identifier": "ann"}, "ann"),
        ({}, {"metadata": {"user_id": "ann"}}, "ann"),
        ({}, {"metadata": {"user_id": "user_ann_account__session_7"}}, ""),  # Claude Code: another one for each session
        ({}, {"metadata": "ann"}, ""),
        ({"x-memory-user": "a" * 600}, {}, "a" * 512),
    ],
)
def test_an_end_user_counts_only_with_the_scope(headers: dict[str, str], body: dict[str, Any], end_user: str) -> None:
    assert cube_of(principal("chat", "act_as_user"), headers, body, USERS) == home_cube("pr", end_user)
    assert cube_of(principal("chat", "admin"), headers, body, USERS) == home_cube("pr")


def test_no_choice_of_names_reaches_another_principals_cube() -> None:
    assert len({home_cube("a"), home_cube("b"), home_cube("a", "b"), home_cube("b", "a"), home_cube("ab")}) == 5
