"""Ranking: numbers that are always numbers, in an order that a reader would choose, and nothing where nothing fits."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from memory.index import embed_pieces
from memory.late import Asked, encode_query
from memory.models import Embedder
from memory.rank import FOREIGN, LATE, PLAIN, Ranked, rank, usual_cosine
from memory.signals import NAMES, WHOLE, scaled, signals
from memory.store import Filter, Piece
from memory.view import MERGE, View
from tests.memory.make import NOW

DAY = 86400.0


def piece(number: int, text: str, **fields: Any) -> Piece:
    side = fields.get("side", "user")
    named = fields.get("speaker") or ("Assistant" if side == "assistant" else "User")
    fields = {"session": "s1", "time": NOW + number, "at": NOW + number} | fields
    memory = fields.pop("memory", f"m{number}")
    return Piece(
        **({"id": f"{memory}:{side[0]}0", "memory": memory, "side": "user", "kind": "episode"} | fields),
        text=f"{named} (14 November 2023): {text}",
    )


def view(embedder: Embedder, *pieces: Piece) -> View:
    return View.of(embed_pieces(embedder, pieces), embedder.dimensions)


def found(embedder: Embedder, question: str, *pieces: Piece, **options: Any) -> list[Ranked]:
    asked = encode_query(embedder, question)
    only = options.pop("only", Filter())
    return rank(view(embedder, *pieces), question, asked, only, NOW + 10 * DAY, **options)


def order(embedder: Embedder, question: str, *texts: str | Piece, **options: Any) -> list[int]:
    pieces = [piece(n, text) if isinstance(text, str) else text for n, text in enumerate(texts)]
    return [entry.number for entry in found(embedder, question, *pieces, **options)]


def test_every_weight_belongs_to_a_signal() -> None:
    assert all(set(table) <= set(NAMES) for table in (LATE, PLAIN, FOREIGN))


@pytest.mark.parametrize("values", [[], [0.0], [3.0], [0.0, 0.0], [1.0, 1.0], [-1.0, 2.0, 0.5]])
def test_scaling_stays_between_nought_and_one(values: Sequence[float]) -> None:
    if values:
        out = scaled(np.array(values))
        assert np.all((out >= 0) & (out <= 1))
        assert list(np.argsort(out, kind="stable")) == list(np.argsort(values, kind="stable"))


@pytest.mark.parametrize("question", ["", "dog", "the of", "?", "狗", "\ud83d"])
def test_nothing_is_found_in_nothing(embedder: Embedder, question: str) -> None:
    assert order(embedder, question.encode("utf-8", "replace").decode()) == []


def test_the_fitting_one_comes_first_with_reasons(embedder: Embedder) -> None:
    texts = ["I baked bread this morning.", "My puppy Rex is seven months old.", "The tax form is due in April."]
    best, *_ = found(embedder, "How old is my dog?", *(piece(n, text) for n, text in enumerate(texts)))
    assert best.number == 1
    assert 0 < best.score <= 1
    assert best.why["match"] > 0
    assert sum(best.why.values()) == pytest.approx(best.score, abs=0.01)


def test_other_words_for_the_same_are_found(embedder: Embedder) -> None:
    texts = ["Our vacation in the mountains was great.", "I bought a new vehicle, a red one.", "Lunch was soup."]
    assert order(embedder, "Which car did I buy?", *texts)[0] == 1


def test_an_answer_is_found_beside_its_question(embedder: Embedder) -> None:
    said = [
        piece(0, "The weather is nice today.", memory="a"),
        piece(1, "Where did you grow up, by the way?", memory="b", speaker="Ann"),
        piece(2, "Sweden!", memory="c", speaker="Bo"),
        piece(3, "I like soup.", memory="d"),
    ]
    numbers = order(embedder, "In which country did Bo grow up?", *said)
    assert numbers.index(2) < numbers.index(0) if 0 in numbers else 2 in numbers
    assert 2 in numbers[:2]


def test_a_code_is_found_by_its_digits(embedder: Embedder) -> None:
    texts = [f"The order number is A{n}." for n in range(40)]
    assert order(embedder, "What about order A17?", *texts)[0] == 17


def test_a_date_in_the_question_counts(embedder: Embedder) -> None:
    pieces = [piece(n, "We went swimming.", time=NOW + n * 40 * DAY, at=NOW + n * 40 * DAY) for n in range(6)]
    asked = "Did we go swimming in January 2024?"  # NOW is 14 November 2023
    assert order(embedder, asked, *pieces)[0] == 2


@pytest.mark.parametrize(
    ("question", "asks"), [("When is it?", True), ("Whenever is it?", False), ("Rewhen it?", False)]
)
def test_when_is_a_word_of_its_own(embedder: Embedder, question: str, asks: bool) -> None:
    seen = view(embedder, piece(0, "We go there in May."))
    got = signals(seen, question, encode_query(embedder, question), Filter(), NOW)
    assert bool(got.values[0, NAMES.index("when")]) is asks


def test_what_the_assistant_said_comes_first_when_asked_for(embedder: Embedder) -> None:
    pieces = [
        piece(0, "Can you recommend a book about rivers?", memory="a"),
        piece(1, "You could read The Waters of March, a book about rivers.", side="assistant", memory="a"),
    ]
    assert order(embedder, "Which book about rivers did you recommend?", *pieces)[0] == 1


@pytest.mark.parametrize(
    ("narrow", "left"),
    [
        (Filter(kinds=("goal",)), [0]),
        (Filter(tag="work"), [1]),
        (Filter(entity="RÉX"), [2]),
        (Filter(since=NOW + 3), [3]),
        (Filter(until=NOW + 1), [0]),
        (Filter(as_of=NOW - 5), [4]),
    ],
)
def test_a_filter_is_kept(embedder: Embedder, narrow: Filter, left: list[int]) -> None:
    pieces = [
        piece(0, "tea one", kind="goal", valid_from=NOW),
        piece(1, "tea two", tags=("work",), valid_from=NOW),
        piece(2, "tea three", entities=("rex",), valid_from=NOW),
        piece(3, "tea four", valid_from=NOW),
        piece(4, "tea five", status="superseded", valid_from=NOW - 10, valid_to=NOW - 1, at=NOW + 2),
    ]
    assert order(embedder, "tea", *pieces, only=narrow) == left


@pytest.mark.parametrize(
    "question", ["What is the capital of Mongolia?", "Explain the Krebs cycle.", "When did Gudrun sell her boat?"]
)
def test_what_was_never_said_finds_nothing(embedder: Embedder, question: str) -> None:
    texts = ["My dog is called Rex.", "I live in Oslo.", "My sister's wedding is in June.", "I sold my boat to Bo."]
    assert order(embedder, question, *texts) == []
    assert len(order(embedder, question, *texts, every=True)) == len(texts)


def test_a_name_that_was_heard_is_no_stranger(embedder: Embedder) -> None:
    texts = ["Gudrun sold her boat in May.", "I live in Oslo.", "The soup was good."]
    assert order(embedder, "When did Gudrun sell her boat?", *texts)[0] == 0


def test_chinese_is_found_by_its_characters(embedder: Embedder) -> None:
    texts = ["我家的猫叫团子，今年三岁。", "我在杭州的出版社工作。", "周末想去爬山。"]
    assert order(embedder, "我的猫叫什么名字？", *texts)[0] == 0
    assert order(embedder, "我在哪个城市工作？", *texts)[0] == 1


def test_that_the_same_was_said_before_answers_nothing(embedder: Embedder) -> None:
    fact = "My dog is called Pumpernickel."
    for question in ("Hello!", "What should I cook tonight?"):
        assert order(embedder, question, fact) == []
        assert 0 not in order(embedder, question, fact, question)


def test_pieces_without_vectors_are_found_by_their_words(embedder: Embedder) -> None:
    known = embed_pieces(embedder, [piece(0, "I like tea."), piece(1, "I like soup.")])
    bare = piece(2, "The word is zanzibar.")
    seen = View.of([*known, bare], embedder.dimensions)
    asked = encode_query(embedder, "zanzibar")
    assert next(entry.number for entry in rank(seen, "zanzibar", asked, Filter(), NOW)) == 2


class Plain:
    """The default embedder without its word pieces."""

    id = "plain"
    dimensions = 384

    def __init__(self, inner: Embedder) -> None:
        self.embed, self.embed_query = inner.embed, inner.embed_query


def test_an_embedder_without_word_pieces_serves_too(embedder: Embedder) -> None:
    plain: Any = Plain(embedder)
    texts = ["I baked bread this morning.", "My puppy Rex is seven months old.", "The tax form is due in April."]
    usual = usual_cosine(plain)
    assert -0.2 < usual < 0.3
    assert order(plain, "How old is my dog?", *texts, usual=usual)[0] == 1
    assert order(plain, "Explain the Krebs cycle.", *texts, usual=usual) == []


def test_a_large_cube_is_looked_at_in_two_steps(embedder: Embedder) -> None:
    filler = [
        piece(n, f"Note {n}: nothing much happened at the office.", session=f"s{n // 9}") for n in range(WHOLE + 60)
    ]
    needle = piece(WHOLE + 99, "My grandmother collected porcelain owls.", session="s3")
    seen = view(embedder, *filler, needle)
    question = "What did my grandma collect?"
    got = signals(seen, question, encode_query(embedder, question), Filter(), NOW)
    assert len(got.numbers) < len(seen.pieces)
    ranked = rank(seen, question, encode_query(embedder, question), Filter(), NOW)
    assert seen.pieces[ranked[0].number].memory == needle.memory


@pytest.mark.parametrize("seed", range(5))
def test_a_view_that_was_changed_is_the_one_made_anew(embedder: Embedder, seed: int) -> None:
    """Random changes, then the same ranking as from a fresh view of what is left."""
    dice = np.random.default_rng(seed)
    words = ["tea", "soup", "boat", "dog", "Oslo", "garden", "violin", "snow"]

    def some(n: int) -> Piece:
        said = " ".join(dice.choice(words, 3))
        return piece(n, f"I like {said}.", session=f"s{n % 3}", memory=f"m{n}")

    held = {f"m{n}": some(n) for n in range(12)}
    seen = view(embedder, *held.values())
    for _ in range(15):
        gone = [str(m) for m in dice.choice(list(held), 2)]
        new = [some(int(n)) for n in dice.integers(0, 30, 2)]
        new = list({p.memory: p for p in new}.values())
        for memory in [*gone, *(p.memory for p in new)]:
            held.pop(memory, None)
        held |= {p.memory: p for p in new}
        embedded = embed_pieces(embedder, new)
        seen = seen.changed({*gone, *(p.memory for p in new)}, embedded, embedder.dimensions)
    question = "Do I like my dog or the boat?"
    asked = encode_query(embedder, question)
    left = seen.living()
    assert {p.id for p in left} == {p.id for p in held.values()}
    fresh = View.of(left, embedder.dimensions)

    def scores(of: View) -> dict[str, float]:
        return {of.pieces[e.number].id: round(e.score, 5) for e in rank(of, question, asked, Filter(), NOW, every=True)}

    assert scores(seen) == scores(fresh)


def test_many_small_changes_leave_few_blocks(embedder: Embedder) -> None:
    seen = view(embedder, *(piece(n, f"Note {n}.") for n in range(40)))
    for n in range(40, 340):
        seen = seen.changed({f"m{n}", f"m{n - 1}"} if n % 7 == 0 else {f"m{n}"}, [piece(n, f"Note {n}.")], 384)
        assert len(seen.blocks) <= 8
        assert len(seen.pieces) < 2 * int(seen.alive.sum()) + 2
    held = [p.memory for i, p in enumerate(seen.pieces) if seen.alive[i]]
    assert sorted(held) == sorted(f"m{n}" for n in range(340) if n < 41 or (n + 1) % 7)


def test_a_view_holds_nothing_of_what_is_gone_once_it_is_merged(embedder: Embedder) -> None:
    seen = view(embedder, piece(0, "The password is swordfish."), piece(1, "I like tea."))
    seen = seen.changed({"m0"}, [piece(n, "I like soup.") for n in range(2, MERGE + 3)], 384)
    assert len(seen.blocks) == 1
    assert not [p for p in seen.pieces if "swordfish" in p.text]
    assert seen.codes.words.keys() >= {"tea", "soup"}
    assert "swordfish" not in seen.codes.words
    assert "m0" not in seen.codes.memories
    assert seen.codes.sessions.keys() == {"", *(p.session for p in seen.pieces)}
    assert [list(seen.postings("tea")[0]), len(seen.postings("soup")[0])] == [[0], MERGE + 1]


def test_a_changed_view_keeps_the_arrays_of_what_did_not_change(embedder: Embedder) -> None:
    seen = view(embedder, *(piece(n, f"Note {n}.", tags=("note",)) for n in range(40)))
    made = seen.changed({"m3"}, [piece(40, "Note 40.", kind="goal", tags=("note",))], 384)
    assert made.blocks[0] is seen.blocks[0]
    assert made.size == sum(block.size for block in made.blocks) > seen.size
    assert list(np.flatnonzero(made.wanted(Filter(tag="note")))) == [n for n in range(41) if n != 3]
    assert list(np.flatnonzero(made.wanted(Filter(kinds=("goal", "fact"))))) == [40]


def test_vectors_are_held_once(embedder: Embedder) -> None:
    seen = view(embedder, piece(0, "My dog is called Rex."))
    for made in (seen, seen.changed(set(), embed_pieces(embedder, [piece(1, "I like tea.")]), embedder.dimensions)):
        for block in made.blocks:
            assert all(p.vector is None and p.late is None for p in block.pieces)
            whole = [block.piece(i) for i in range(len(block))]
            assert all(p.vector is not None and np.shares_memory(p.vector, block.vectors) for p in whole)
            assert all(p.late is not None and np.shares_memory(p.late, block.late) for p in whole)


def test_views_made_at_the_same_time_do_not_mix_memories_up(embedder: Embedder) -> None:
    """A question that was given up leaves a thread that still makes a view of the same cube."""
    seen = view(embedder, piece(0, "I like tea."))
    made = [[piece(n, "I like soup.", session=f"s{n}") for n in range(k, 400, 8)] for k in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda new: seen.changed(set(), new, embedder.dimensions), made))
    assert sorted(seen.codes.memories.values()) == list(range(len(seen.codes.memories)))


@pytest.mark.parametrize("text", ["", "🙂", "\x00", "...", "a" * 3000, "我家的猫叫团子。", "\u200b"])
@pytest.mark.parametrize(
    "question", ["🙂🙂", "\x00", "？？？", "x" * 4000, "我" * 2000, "? " * 2000, "İ" * 300, "? 9999-99-99"]
)
def test_strange_questions_and_texts_do_no_harm(embedder: Embedder, question: str, text: str) -> None:
    known = embed_pieces(embedder, [piece(0, text), piece(1, "I like tea.")])
    nameless = [replace(p, vector=np.full(384, np.nan, np.float32), late=None) for p in known]
    asked = encode_query(embedder, question)
    for some in ([], known, nameless, [known[0], piece(2, text)], [piece(0, text)], [replace(known[0], text="")]):
        seen = View.of(some, embedder.dimensions)
        for each in (asked, Asked(asked.vector)):
            for every in (True, False):
                assert all(np.isfinite(e.score) for e in rank(seen, question, each, Filter(), NOW, every=every))
