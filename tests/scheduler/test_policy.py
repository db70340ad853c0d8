"""The policy: what an item is worth, which tier it gets, and what it says for it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from scheduler.policy import DAY_S, MANY, STAYS, Budget, Item, Placement, Tier, explain, moves, place, value

NOW = 1_700_000_000.0
ROUNDS = 300


def item(name: str = "m", **given: Any) -> Item:
    """A memory of a hundred bytes that was said a day ago and can be anywhere."""
    fields: dict[str, Any] = {"id": name, "sizes": {Tier.KV: 100, Tier.RAM: 100, Tier.INDEX: 100}, "since": NOW - DAY_S}
    return Item(**(fields | given))


def used(times: float, days_ago: float, name: str = "m", **given: Any) -> Item:
    """One that was said 60 days ago and used since."""
    return item(name, **({"since": NOW - 60 * DAY_S, "uses": times, "last_used": NOW - days_ago * DAY_S} | given))


def some(rng: random.Random, count: int) -> list[Item]:
    """Items of any age, size and kind."""
    return [
        item(
            f"m{number}",
            sizes={tier: rng.randint(1, 300) for tier in (Tier.KV, Tier.RAM, Tier.INDEX) if rng.random() < 0.8},
            since=NOW - rng.uniform(50, 400) * DAY_S,
            uses=rng.choice([0, 0, 1, 3, 20]),
            last_used=rng.choice([None, NOW - rng.uniform(0, 50) * DAY_S]),
            prior=rng.random(),
            expected=rng.choice([None, 0.0, rng.random()]),
            due=rng.choice([None, NOW + rng.uniform(-10, 30) * DAY_S]),
            standing=rng.random() < 0.2,
            pinned=rng.random() < 0.1,
            archived=rng.random() < 0.1,
        )
        for number in range(count)
    ]


def budget(rng: random.Random) -> Budget:
    return Budget({Tier.KV: rng.randint(0, 800), Tier.RAM: rng.randint(0, 3000)})


def tiers(placements: dict[str, Placement]) -> dict[str, Tier]:
    return {name: one.tier for name, one in placements.items()}


# --- value -----------------------------------------------------------------------------------------------------------------


def test_what_is_new_and_unforeseen_is_worth_something_and_less_than_what_is_used() -> None:
    new, often = value(item(since=NOW), NOW), value(used(6, 2), NOW)
    assert 0 < new.total < often.total < 1


def test_the_factors_are_those_of_the_formula() -> None:
    found = value(item(since=NOW - 7 * DAY_S, prior=MANY, expected=1.0), NOW)
    assert (found.frequency, found.recency, found.relevance) == pytest.approx((0.5, 0.5, 1.0))
    assert value(item(uses=8, since=NOW - 30 * DAY_S, last_used=NOW - 30 * DAY_S), NOW).used == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("more", "less"),
    [
        (used(6, 2), used(5, 2)),
        (used(6, 2), used(6, 3)),
        (used(6, 2, expected=0.5), used(6, 2, expected=0.4)),
        (used(6, 2, expected=0.3), used(6, 2)),  # unknown is a chance of 0.2
        (used(6, 2), used(6, 2, expected=0.1)),
        (used(6, 2, standing=True), used(6, 2)),
        (used(6, 2, due=NOW + DAY_S), used(6, 2, due=NOW + 9 * DAY_S)),
        (used(6, 2, prior=0.9), used(6, 2, prior=0.3)),
        (item(since=NOW), item(since=NOW - DAY_S)),
    ],
)
def test_more_use_fresher_and_likelier_is_worth_more(more: Item, less: Item) -> None:
    assert value(more, NOW).total > value(less, NOW).total


def test_a_value_stays_between_0_and_1_whatever_the_clocks_say() -> None:
    rng = random.Random(1)
    for one in some(rng, ROUNDS):
        for now in (0.0, NOW - 500 * DAY_S, NOW, NOW + 1e9):
            assert 0 < value(one, now).total < 1


# --- placing ---------------------------------------------------------------------------------------------------------------


def test_no_tier_holds_more_than_its_budget_and_every_item_is_somewhere() -> None:
    rng = random.Random(2)
    before: dict[str, Placement] = {}
    for _ in range(ROUNDS):
        items, limits = some(rng, 30), budget(rng)
        before = place(items, limits, NOW, before)
        assert before.keys() == {one.id for one in items}
        for tier in (Tier.KV, Tier.RAM):
            assert sum(one.sizes[tier] for one in items if before[one.id].tier is tier) <= limits.of(tier)
        for one in items:
            assert before[one.id].tier is Tier.ARCHIVE or before[one.id].tier in one.sizes
            assert before[one.id].tier is Tier.ARCHIVE or not one.archived


def test_the_order_of_the_items_does_not_matter() -> None:
    rng = random.Random(3)
    for _ in range(ROUNDS):
        items, limits = some(rng, 20), budget(rng)
        assert place(items, limits, NOW) == place(rng.sample(items, len(items)), limits, NOW)


def better(one: Item, rng: random.Random) -> Item:
    """The same item, used more, more recently, or likelier."""
    last = one.since if one.last_used is None else one.last_used
    ways = [
        replace(one, uses=one.uses + rng.choice([1, 5])) if one.last_used else replace(one, prior=one.prior + 1),
        replace(one, last_used=last + (NOW - last) * rng.random()),
        replace(one, expected=min(1.0, (0.2 if one.expected is None else one.expected) + rng.random())),
        replace(one, pinned=True),
    ]
    return rng.choice(ways)


def test_who_is_used_more_or_likelier_never_gets_a_farther_tier() -> None:
    rng = random.Random(4)
    for _ in range(ROUNDS):
        items, limits = some(rng, 20), budget(rng)
        before = place(items, limits, NOW - DAY_S)
        number = rng.randrange(len(items))
        raised = [better(one, rng) if at == number else one for at, one in enumerate(items)]
        name = items[number].id
        was, now = place(items, limits, NOW, before)[name], place(raised, limits, NOW, before)[name]
        assert now.tier.rank <= was.tier.rank


def test_the_pinned_stay_near_unless_they_alone_are_too_many() -> None:
    rng = random.Random(5)
    for _ in range(ROUNDS):
        items = [replace(one, archived=False, sizes={**one.sizes, Tier.RAM: 100}) for one in some(rng, 20)]
        limits = budget(rng)
        if sum(100 for one in items if one.pinned) > limits.of(Tier.RAM):
            continue
        found = place(items, limits, NOW)
        assert all(found[one.id].tier in (Tier.KV, Tier.RAM) for one in items if one.pinned)


def test_one_large_item_does_not_push_out_many_small_ones() -> None:
    small = [used(5, 1, f"small{n}", sizes={Tier.RAM: 100, Tier.INDEX: 100}) for n in range(5)]
    large = used(1, 0, "large", sizes={Tier.RAM: 800, Tier.INDEX: 800})
    found = place([*small, large], Budget({Tier.RAM: 1000}), NOW)
    assert [name for name, one in found.items() if one.tier is Tier.INDEX] == ["large"]


def test_what_costs_more_to_bring_back_is_kept_sooner() -> None:
    pair = [used(3, 1, "cheap"), used(3, 1, "dear", cost=2.0)]
    found = place(pair, Budget({Tier.KV: 0, Tier.RAM: 100}), NOW)
    assert tiers(found) == {"dear": Tier.RAM, "cheap": Tier.INDEX}


def test_nothing_is_archived_for_want_of_value_unless_the_index_has_a_budget() -> None:
    old = [item(f"m{n}", since=0.0) for n in range(50)]
    assert set(tiers(place(old, Budget({Tier.KV: 0, Tier.RAM: 100}), NOW)).values()) == {Tier.RAM, Tier.INDEX}
    assert Tier.ARCHIVE in tiers(place(old, Budget({Tier.KV: 0, Tier.RAM: 0, Tier.INDEX: 100}), NOW)).values()


# --- staying ---------------------------------------------------------------------------------------------------------------


def jittered(items: Sequence[Item], rng: random.Random) -> list[Item]:
    """The items with values that went up or down by less than the root of STAYS."""
    most = STAYS**0.5 * 0.999
    return [replace(one, cost=one.cost * most ** rng.uniform(-1, 1)) for one in items]


def test_while_values_move_by_less_than_the_margin_nothing_moves() -> None:
    rng = random.Random(6)
    for _ in range(ROUNDS):
        items, limits = some(rng, 20), budget(rng)
        before = place(items, limits, NOW)
        for _ in range(5):
            before = place(jittered(items, rng), limits, NOW, before)
            assert moves(before) == []


def test_two_that_take_turns_do_not_push_each_other_out_every_time() -> None:
    limits, before, moved = Budget({Tier.KV: 0, Tier.RAM: 100}), {}, 0
    for round_ in range(40):
        now = NOW + round_ * 3600.0
        pair = [
            used(10 + round_ / 2, 0, name, last_used=now - 3600.0 * ((round_ + turn) % 2))
            for turn, name in enumerate(("a", "b"))
        ]
        before = place(pair, limits, now, before)
        moved += len(moves(before))
    assert moved == 0


def test_who_is_worth_clearly_more_takes_the_place_and_both_have_moved() -> None:
    limits = Budget({Tier.KV: 0, Tier.RAM: 100})
    before = place([used(3, 1, "a"), used(2, 1, "b")], limits, NOW)
    after = place([used(3, 1, "a"), used(9, 0, "b")], limits, NOW, before)
    assert {one.item: (one.came_from, one.tier) for one in moves(after)} == {
        "a": (Tier.RAM, Tier.INDEX),
        "b": (Tier.INDEX, Tier.RAM),
    }


def test_a_placement_remembers_since_when_it_is() -> None:
    limits, one = Budget({Tier.KV: 100}), [used(3, 1)]
    before = place(one, limits, NOW)
    assert place(one, limits, NOW + DAY_S, before)["m"].since == NOW
    assert place(one, Budget({Tier.KV: 0}), NOW + DAY_S, before)["m"].since == NOW + DAY_S


# --- explaining ------------------------------------------------------------------------------------------------------------


def told(
    items: Sequence[Item], limits: Budget, name: str, before: dict[str, Placement] | None = None, **given: str
) -> str:
    (one,) = [each for each in items if each.id == name]
    return explain(place(items, limits, NOW, before)[name], one, **given)


def test_an_explanation_gives_the_figures_that_decided() -> None:
    plain = {"sizes": {Tier.RAM: 100, Tier.INDEX: 100}}
    pair, limits = [used(6, 2, "a", expected=0.41, **plain), used(1, 9, "b", **plain)], Budget({Tier.RAM: 100})
    assert told(pair, limits, "a") == (
        "RAM since 14 Nov 2023: used 6 times, last 2 days ago, expected next with 0.41, value 0.197; "
        "one of its size is kept there from 0.197 on."
    )
    assert told(pair, limits, "b") == (
        "The index since 14 Nov 2023: used once, last 9 days ago, expected next with 0.20 (nothing foreseen), value 0.032; "
        "RAM takes one of its size from 0.197 on."
    )


def test_a_move_says_where_it_came_from() -> None:
    limits = Budget({Tier.KV: 0, Tier.RAM: 100})
    before = place([used(3, 1, "a"), used(2, 1, "b")], limits, NOW)
    said = told([used(3, 1, "a"), used(9, 0, "b")], limits, "b", before)
    assert said.startswith("From the index to RAM on 14 Nov 2023: used 9 times, last today, ")


@pytest.mark.parametrize(
    ("given", "limits", "ends"),
    [
        ({}, {}, "there is room for all."),
        ({"pinned": True}, {Tier.KV: 100}, "it is pinned."),
        ({"archived": True}, {}, "it was archived."),
        ({}, {Tier.KV: 99}, "it is larger than what is left of the stable block."),
    ],
)
def test_there_is_a_reason_for_every_place(given: dict[str, Any], limits: dict[Tier, int], ends: str) -> None:
    assert told([used(2, 1, **given)], Budget(limits), "m").endswith(ends)


def test_what_else_decided_can_be_said_for_it() -> None:
    assert told([used(2, 1, archived=True)], Budget(), "m", because="nobody asked for 90 days").endswith(
        "; nobody asked for 90 days."
    )


def test_every_placing_can_be_explained() -> None:
    rng = random.Random(7)
    for _ in range(ROUNDS):
        items, limits = some(rng, 12), budget(rng)
        before = place(items, limits, NOW - DAY_S)
        found = place(some(rng, 12), limits, NOW, before)
        for one in items:
            said = explain(found[one.id], one)
            assert said.endswith(".")
            assert f"value {found[one.id].value.total:.3f}; " in said
