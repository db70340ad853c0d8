"""`memrelay eval`: small conversations whose figures can be worked out by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.evaluation import figures, formats
from proxy.evaluation.figures import Answer
from proxy.evaluation.talk import Asked, BadData


def line(dia_id: str, speaker: str, text: str, **more: str) -> dict[str, str]:
    return {"dia_id": dia_id, "speaker": speaker, "text": text, **more}


def question(text: str, category: int, *evidence: str) -> dict[str, Any]:
    return {"question": text, "category": category, "evidence": list(evidence)}


GARDEN = {
    "sample_id": "garden",
    "conversation": {
        "speaker_a": "Ada",
        "speaker_b": "Bo",
        "session_2_date_time": "9:00 am on 3 June, 2024",
        "session_2": [
            line("D2:1", "Bo", "Good morning!"),
            line("D2:2", "Ada", "The hedgehog came back to the compost heap."),
        ],
        "session_1_date_time": "1:56 pm on 8 May, 2024",
        "session_1": [
            line("D1:1", "Ada", "I planted forty tulip bulbs along the fence."),
            line("D1:2", "Bo", "My kayak has a leak.", blip_caption="a red kayak on a trailer"),
            line("D1:3", "Bo", "I patched it with resin."),
        ],
        "session_3_date_time": "9:00 am on 4 June, 2024",
    },
    "qa": [
        question("How many tulip bulbs did Ada plant along the fence?", 4, "D1:1"),
        question("What of tulip bulbs along the fence and the hedgehog at the compost heap?", 1, "D1:1; D:2:2", "D"),
        question("Which kayak of Bo has a leak?", 5, "D1:2"),
        question("Nobody knows where this was said", 4, "D9:9"),
        question("Nor this", 3),
    ],
}
ENGINES = {
    "sample_id": "engines",
    "conversation": {
        "speaker_a": "Cem",
        "speaker_b": "Dee",
        "session_1_date_time": "12:10 am on 1 January, 2024",
        "session_1": [line("D1:1", "Cem", "The diesel locomotive needs a new turbocharger.")],
    },
    "qa": [question("When did the locomotive get its turbocharger?", 2, "D1:1")],
}
BAKING = {
    "chats": [
        {
            "name": "baker",
            "sessions": [
                {
                    "date": "2026-03-01",
                    "rounds": [
                        {"user": "My sourdough starter is called Gerald.", "assistant": "A fine name."},
                        {"user": "Which flour is best?", "assistant": "Rye flour ferments fastest."},
                    ],
                },
                {"date": "2026-03-09", "rounds": [{"user": "I bought a cast-iron oven.", "assistant": "Nice."}]},
            ],
            "questions": [
                {"question": "What is my sourdough starter called?", "evidence": ["0:0"], "category": "single"},
                {"question": "Which flour ferments fastest?", "evidence": ["0:1"], "category": "single"},
                {"question": "Which quantum physics lecture did I attend?", "evidence": [], "category": "unanswerable"},
            ],
        }
    ]
}
BANK = [
    {
        "user": "李雷",
        "history": {
            "2023-05-02": [{"query": "我家的猫叫豆豆。", "response": "真可爱。"}],
            "2023-05-01": [
                {"query": "今天下雨了。", "response": "记得带伞。"},
                {"query": "我在读《百年孤独》。", "response": "好书。"},
            ],
        },
        "questions": [
            {"question": "我家的猫叫什么名字？", "evidence": ["05-02:0"]},
            {"question": "我在读《百年孤独》吗？", "evidence": ["05-01:1", "12-31:0"]},
        ],
    }
]


@pytest.fixture
def run(data: Path) -> Any:
    def run(kind: str, content: Any, *words: str) -> Result:
        path = data / "file.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return CliRunner().invoke(main, ["eval", kind, str(path), *words, "--data", str(data)])

    return run


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_locomo(run: Any, data: Path) -> None:
    body = answer(run("locomo", [GARDEN, ENGINES], "--json"))
    assert (body["n"], body["turns"], body["conversations"]) == (3, 6, 2)
    assert body["recall"] == {"1": pytest.approx(2.5 / 3, abs=1e-5), "5": 1.0, "10": 1.0, "20": 1.0, "50": 1.0}
    assert body["mrr"] == 1.0
    assert body["budget"] == dict.fromkeys(["250", "500", "1000", "2000", "4000"], 1.0)
    assert {name: row["n"] for name, row in body["per_category"].items()} == {
        "single-hop": 1,
        "multi-hop": 1,
        "adversarial": 1,
        "temporal": 1,
    }
    assert body["per_category"]["multi-hop"]["recall"]["1"] == 0.5
    assert body["abstention"] == 1.0  # what one talked about the other never did
    assert body["abstention_by"]["another's"]["n"] == 4
    assert 0 < body["latency_ms"]["p50"] <= body["latency_ms"]["p95"]
    assert [path.name for path in data.iterdir() if path.name.startswith(".eval")] == []


def test_people_get_a_table(run: Any) -> None:
    shown = run("locomo", [GARDEN, ENGINES])
    assert shown.exit_code == 0
    assert "3 questions over 6 turns of 2 conversations" in shown.stdout
    assert "multi-hop" in shown.stdout


def test_baselines_see_the_same_texts(run: Any) -> None:
    body = answer(run("locomo", [GARDEN, ENGINES], "--baselines", "--json"))
    assert [row["name"] for row in body["baselines"]] == ["BM25", "dense", "LanceDB hybrid"]
    assert {(row["n"], row["recall"]["5"]) for row in body["baselines"]} == {(3, 1.0)}


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """An interpreter whose mem0 finds whatever was put in, first things first."""
    path = tmp_path / "python"
    path.write_text(
        f"""#!{sys.executable}
import json, sys
kept = {{}}
print("{{}}", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    mine = kept.setdefault(asked["user"], [])
    mine += [key for key, _ in asked.get("texts", [])]
    print(json.dumps({{"keys": mine[: asked.get("limit", 0)], "ms": 7.0, "cpu_ms": 5.0}}), flush=True)
"""
    )
    path.chmod(0o755)
    return str(path)


def test_a_peer_is_measured_on_the_same_texts(run: Any, stand_in: str) -> None:
    body = answer(run("locomo", [GARDEN, ENGINES], "--baselines", "--peer-python", stand_in, "--json"))
    row = body["baselines"][3]
    assert (row["name"], row["n"], row["latency_ms"]) == ("mem0", 3, {"p50": 7.0, "p95": 7.0})
    assert row["recall"]["1"] == pytest.approx(2.5 / 3, abs=1e-5)  # D1:1 comes first in both
    assert row["per_category"]["adversarial"]["recall"]["1"] == 0.0  # D1:2 is second


def test_an_interpreter_without_mem0_is_named(run: Any) -> None:
    refused = run("locomo", [ENGINES], "--baselines", "--peer-python", sys.executable)
    assert refused.exit_code == 1
    assert "cannot run mem0" in refused.stderr
    assert "cannot start /no/python" in run("locomo", [ENGINES], "--baselines", "--peer-python", "/no/python").stderr


def test_retrieval_is_timed_beside_a_peer(data: Path, stand_in: str) -> None:
    words = ["bench", "retrieval", "--memories", "30", "60", "--questions", "3", "--data", str(data), "--json"]
    body = answer(CliRunner().invoke(main, [*words, "--peer-python", stand_in]))
    assert [row["memories"] for row in body["rows"]] == [30, 60]
    for row in body["rows"]:
        assert row["pieces"] >= row["memories"]
        assert row["mem0"] == {"ms": {"p50": 7.0, "p95": 7.0}, "cpu_ms": {"p50": 5.0, "p95": 5.0}}
        parts = row["ours"]["parts_p50_ms"]
        assert set(parts) == {"embed", "sql", "index", "rest"}
        assert 0 < parts["embed"] <= row["ours"]["ms"]["p95"]
    alone = answer(CliRunner().invoke(main, words))
    assert {row["mem0"] for row in alone["rows"]} == {None}


def test_chosen_conversations_and_questions(run: Any) -> None:
    body = answer(run("locomo", [GARDEN, ENGINES], "--conversations", "1", "--json"))
    assert (body["n"], body["turns"]) == (1, 1)
    assert body["abstention"] is None
    assert answer(run("locomo", [GARDEN, ENGINES], "--sample", "2", "--json"))["abstention_by"]["another's"]["n"] == 2


def test_pairs_are_rounds_of_a_user_and_an_assistant(run: Any) -> None:
    talk = next(formats.locomo_pairs([GARDEN]))
    rounds = [(turn.key, turn.text, turn.answer) for turn in talk.turns]
    assert rounds[0][1] == "I planted forty tulip bulbs along the fence."
    assert rounds[0][2].endswith("I patched it with resin.")
    assert rounds[1:] == [("D2:1", "The hedgehog came back to the compost heap.", "Good morning!")]
    assert talk.questions[1].evidence == {"D1:1", "D2:1"}
    assert answer(run("locomo", [GARDEN], "--pairs", "--json"))["turns"] == 2


def test_without_names_every_speaker_is_the_user(run: Any, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    answer(run("locomo", [ENGINES], "--no-names", "--keep", str(kept), "--json"))
    found = CliRunner().invoke(main, ["memories", "search", "locomotive", "--data", str(kept), "--json"])
    assert answer(found)["hits"][0]["text"] == "The diesel locomotive needs a new turbocharger."
    assert "Cem" not in found.stdout


def test_memorybank_counts_rounds(run: Any) -> None:
    body = answer(run("memorybank", BANK, "--json"))
    assert (body["n"], body["turns"], body["recall"]["1"]) == (2, 3, 1.0)


def test_our_own_chats(run: Any) -> None:
    body = answer(run("chats", BAKING, "--json"))
    assert (body["n"], body["recall"]["1"], body["per_category"]["single"]["n"]) == (2, 1.0, 2)
    assert body["abstention"] == 1.0
    assert body["abstention_by"]["unanswerable"] == {"n": 1, "nothing": 1.0}
    assert body["lost_to_silence"] == dict.fromkeys(("1", "5", "10", "20", "50"), 0.0)  # all of it is found anyway


@pytest.mark.parametrize(("name", "answerable", "unanswerable"), [("chats_en", 207, 43), ("chats_zh", 63, 14)])
def test_the_sets_that_come_along_are_whole(name: str, answerable: int, unanswerable: int) -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "data" / f"{name}.json"
    asked = [question for talk in formats.read(path, formats.chats) for question in talk.questions]
    assert sum(question.counts for question in asked) == answerable
    assert sum(question.category == "unanswerable" for question in asked) == unanswerable
    told = json.loads(path.read_text(encoding="utf-8"))["chats"]
    labels = [key for chat in told for question in chat["questions"] for key in question["evidence"]]
    assert len(labels) == sum(len(question.evidence) for question in asked)  # every label names a round


def test_when_things_are_said() -> None:
    garden = next(formats.locomo([GARDEN]))
    assert [turn.key for turn in garden.turns] == ["D1:1", "D1:2", "D1:3", "D2:1", "D2:2"]
    assert garden.turns[1].at - garden.turns[0].at == 1
    assert garden.turns[1].text == "My kayak has a leak. [shares photo: a red kayak on a trailer]"
    assert garden.now - garden.turns[-1].at == 86_400
    assert next(formats.locomo([ENGINES])).turns[0].at == 1_704_067_800  # ten past midnight
    baker = next(formats.chats(BAKING))
    assert baker.turns[1].at - baker.turns[0].at == 60
    assert [turn.session for turn in next(formats.memorybank(BANK)).turns] == ["2023-05-01", "2023-05-01", "2023-05-02"]


@pytest.mark.parametrize(
    ("kind", "content", "says"),
    [
        ("locomo", {"chats": []}, "not in this format"),
        ("locomo", [], "holds no conversation"),
        ("locomo", [{**GARDEN, "conversation": {"session_1": [], "session_1_date_time": "soon"}}], "soon"),
        ("chats", [GARDEN], "not in this format"),
        ("memorybank", BAKING, "not in this format"),
    ],
)
def test_a_file_of_another_format_is_refused(run: Any, kind: str, content: Any, says: str) -> None:
    refused = run(kind, content)
    assert refused.exit_code == 1
    assert says in refused.stderr


def test_other_mistakes_are_said(run: Any, data: Path) -> None:
    assert "from 0 to 0" in run("locomo", [GARDEN], "--conversations", "1").stderr
    assert "is not empty" in run("locomo", [GARDEN], "--keep", str(data)).stderr
    (data / "broken.json").write_text("{")
    with pytest.raises(BadData, match="is not JSON"):
        formats.read(data / "broken.json", formats.locomo)


def test_recall_is_averaged_over_questions() -> None:
    both = Answer(Asked("?", frozenset("ab"), "x"), tuple("cadefgb"), {250: frozenset("a")})
    none = Answer(Asked("?", frozenset("z"), "y"), ("a",))
    row = figures.of_ranking([both, none])
    assert row["recall"] == {"1": 0.0, "5": 0.25, "10": 0.5, "20": 0.5, "50": 0.5}
    assert row["hit"]["5"] == 0.5
    assert row["mrr"] == 0.25  # second place, and none
    assert figures.of_budget([both, none])["250"] == 0.25
    assert figures.of_budget([both, none])["500"] == 0.0
    assert figures.spread([1.0, 2.0, 3.0]) == {"p50": 2.0, "p95": 2.9}
