"""GET /metrics of a live installation: what the executor did, what waits in the queue."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx

from tests.fakes import Received, RecordingUpstream
from tests.live import Installation, LiveProxy, wait_for

DOCS = "".join(
    (Path(__file__).parents[2] / "docs" / name).read_text(encoding="utf-8") for name in ("SCHEDULING.md", "ROUTING.md")
)


def shown(live: Installation) -> dict[str, float]:
    """Every sample without the name of its executor: name and labels → value."""
    answer = httpx.get(f"{live.url}/metrics", timeout=30)
    assert answer.status_code == 200
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    values = [line.rpartition(" ") for line in lines]
    return {re.sub(r'executor="[^"]*",?', "", name): float(value) for name, _, value in values}


def ran(samples: dict[str, float], task: str, outcome: str) -> float:
    return samples.get(f'memrelay_job_runs_total{{outcome="{outcome}",task="{task}"}}', 0.0)


def settings(upstream: RecordingUpstream) -> dict[str, Any]:
    return {
        "upstreams": [{"name": "r", "kind": "openai", "base_url": upstream.url}],
        "extraction": {"model": "extractor", "debounce_s": 0},
        "hooks": ["tests.hooks:Failing"],
    }


def test_a_scrape_shows_what_the_executor_did_and_what_waits(data: Path, upstream: RecordingUpstream) -> None:
    upstream.answer = lambda received: (
        json.dumps({"memories": []}) if received.body["model"] == "extractor" else "Noted."
    )
    with Installation(data, **settings(upstream)) as live:
        wait_for(lambda: shown(live)["memrelay_queue_up"], "the executor to make the queue")
        client = live.client(live.key())
        for text in ("My rug is round.", "My sofa is green."):
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
        wait_for(
            lambda: ran(shown(live), "learn", "done") and ran(shown(live), "sour", "failed"), "the runs to be told"
        )
        joined = 'memrelay_triggers_total{event="session_quiet",outcome="joined"}'
        wait_for(lambda: shown(live).get(joined) == 2.0, "the second turn to join the waiting jobs")
        found = shown(live)
        assert list((data / "metrics").glob("executor-*.prom"))
    assert ran(found, "sour", "retry") == ran(found, "sour", "failed") >= 1
    assert found['memrelay_job_seconds_count{task="learn"}'] == ran(found, "learn", "done")
    calls = sum(request.body["model"] == "extractor" for request in upstream.requests)
    assert found['memrelay_extraction_tokens_total{kind="prompt"}'] == calls > 0
    assert found["memrelay_queue_up"] == 1.0
    assert found['memrelay_jobs{state="failed",task="sour"}'] == ran(found, "sour", "failed")
    assert found['memrelay_jobs{state="waiting",task="predict"}'] == 1.0  # it waits for a silence
    assert found['memrelay_oldest_waiting_job_seconds{task="predict"}'] > 0
    assert found['memrelay_triggers_total{event="session_quiet",outcome="queued"}'] == 2.0
    assert list((data / "metrics").iterdir()) == []
    assert {name for name in map(family, found) if f"`{name}" not in DOCS} == set()


def family(sample: str) -> str:
    """The metric that a sample belongs to."""
    return re.sub(r"_(bucket|count|sum|created)$", "", sample.partition("{")[0])


def test_a_question_is_an_event_before_its_answer_is_there(data: Path, upstream: RecordingUpstream) -> None:
    listens = [{"event": "query_arrived", "task": "index"}]
    upstreams = [{"name": "r", "kind": "openai", "base_url": upstream.url}]
    with LiveProxy(data, upstreams=upstreams, triggers=listens) as live:
        client = live.client(live.key())
        during: list[dict[str, float]] = []

        def answer(_: Received) -> str:
            wait_for(lambda: counted(shown(live)), "the event")
            during.append(shown(live))
            return "Noted."

        upstream.answer = lambda received: answer(received) if not during else "Noted."
        ask = {"model": "m", "messages": [{"role": "user", "content": "My rug is round."}]}
        client.chat.completions.create(**ask)
        client.chat.completions.create(**ask, extra_headers={"x-memory": "off"})
        assert counted(during[0]) == counted(shown(live)) == 1


def counted(samples: dict[str, float]) -> float:
    """How often a question was an event, whether or not there was a queue."""
    return sum(
        value for name, value in samples.items() if name.startswith("memrelay_triggers_total") and "query" in name
    )
