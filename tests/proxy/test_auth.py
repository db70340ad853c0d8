"""When the database cannot answer: a key that was good a moment ago still is, no other."""

from __future__ import annotations

import pytest

from memory.sql import DatabaseError
from proxy import keys
from proxy.auth import Auth, home_cube
from proxy.errors import Unauthorized, Unavailable
from proxy.keys import Key, Keys


class Table(Keys):
    """The table of keys, which can go away."""

    def __init__(self, *known: Key) -> None:
        self.known = {key.id: key for key in known}
        self.down = False

    async def find(self, digest_of_key: str) -> Key | None:
        if self.down:
            raise DatabaseError("locked")
        return self.known.get(digest_of_key)


SECRET, OTHER = keys.generate(), keys.generate()


def key(**changes: object) -> Key:
    values = {"id": keys.digest(SECRET), "principal": "pr", "name": "", "display": "", "scopes": ("chat",), "models": None,
              "created_at": 0.0, "expires_at": None, "revoked_at": None} | changes  # fmt: skip
    return Key(**values)  # type: ignore[arg-type]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_known_key_outlives_an_outage_for_a_while() -> None:
    clock, table = Clock(), Table(key())
    auth = Auth(table, clock, trust_s=60)
    await auth.principal({"x-api-key": SECRET})
    table.down = True
    clock.now += 60
    assert (await auth.principal({"x-api-key": SECRET})).id == "pr"
    clock.now += 1
    with pytest.raises(Unavailable):
        await auth.principal({"x-api-key": SECRET})


async def test_an_unknown_key_waits_for_the_database() -> None:
    table = Table(key())
    auth = Auth(table, Clock())
    await auth.principal({"x-api-key": SECRET})
    table.down = True
    with pytest.raises(Unavailable) as raised:
        await auth.principal({"x-api-key": OTHER})
    assert raised.value.headers["retry-after"] == "5"


@pytest.mark.parametrize("change", [{"expires_at": 110.0}, {"revoked_at": 110.0}])
async def test_a_key_ends_in_an_outage_too(change: dict[str, float]) -> None:
    clock, table = Clock(), Table(key(**change))
    auth = Auth(table, clock)
    await auth.principal({"x-api-key": SECRET})
    table.down, clock.now = True, 110.0
    with pytest.raises(Unauthorized):
        await auth.principal({"x-api-key": SECRET})


async def test_a_key_that_was_seen_to_be_gone_is_not_trusted_again() -> None:
    table = Table(key())
    auth = Auth(table, Clock())
    await auth.principal({"x-api-key": SECRET})
    table.known.clear()
    with pytest.raises(Unauthorized):
        await auth.principal({"x-api-key": SECRET})
    table.down = True
    with pytest.raises(Unavailable):
        await auth.principal({"x-api-key": SECRET})


def test_users_whose_names_were_cut_in_two_are_kept_apart() -> None:
    names = ["ines \ud83d", "ines \udc00", "ines ?", "ines"]
    assert len({home_cube("principal", name) for name in names}) == 4
