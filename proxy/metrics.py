"""Counters and histograms in Prometheus's form; each process has its own registry. What `GET /metrics` shows of them, and how it
comes by the executor's: proxy.scrape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from memory.rows import Count

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LONG_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
STATES = ("built", "present", "slot", "refused", "busy", "away", "off")  # see upstreams.states.Built
_KINDS = ("prompt", "completion")


def triggers_counter(registry: CollectorRegistry) -> Counter:
    """Triggers fire in the proxy, and by the clock in the executor: each counts its own."""
    return Counter(
        "memrelay_triggers", "Jobs that followed from events: queued, joined to one that waits, refused",
        ["event", "outcome"], registry=registry,
    )  # fmt: skip


class Metrics:
    """What the proxy counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("memrelay_requests", "Answered requests", ["route", "status"], registry=self.registry)
        self.memory = Counter("memrelay_memory", "Chats by what memory did", ["state"], registry=self.registry)
        self.recorded = Counter("memrelay_turns", "Turns by how recording ended", ["outcome"], registry=self.registry)
        self.hook_failures = Counter("memrelay_hook_failures", "Hooks that raised", ["hook"], registry=self.registry)
        self.retrieval = Histogram(
            "memrelay_retrieval_seconds", "Retrieval and injection", buckets=_SECONDS, registry=self.registry
        )
        self.recording = Histogram(
            "memrelay_record_seconds", "Until a turn is durable", buckets=_SECONDS, registry=self.registry
        )
        self.first_byte = Histogram(
            "memrelay_upstream_first_byte_seconds",
            "Upstream, until its status line",
            buckets=_SECONDS,
            registry=self.registry,
        )

        self.fallbacks = Counter(
            "memrelay_fallbacks",
            "Requests that another upstream was asked for",
            ["before", "after"],
            registry=self.registry,
        )
        self.tokens = Counter(
            "memrelay_tokens", "As upstreams count: prompt, cached (a part of it), completion; as we do: injected (memory)",
            ["upstream", "kind"], registry=self.registry,
        )  # fmt: skip
        self.refused = Counter("memrelay_refused", "Requests over their key's limits", ["code"], registry=self.registry)
        self.predictions = Counter(
            "memrelay_predictions",
            "Turns by whether their next was foreseen: made, overtaken by the next turn, skipped under load",
            ["outcome"],
            registry=self.registry,
        )
        self.foreseen = Counter(
            "memrelay_foreseen", "Memories that were foreseen, by whether a question found them", ["occasion", "outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.needed = Counter(
            "memrelay_needed", "Memories that a question found, by whether they were foreseen", ["occasion", "outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.openings = Counter(
            "memrelay_openings", "Cubes made ready before a session: looked_in, expected, started, foreseen", ["why"],
            registry=self.registry,
        )  # fmt: skip
        self.prefills = Counter(
            "memrelay_prefills", "Beginnings of prompts given to the local engine ahead: done, nothing (to go by)", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.read_ahead = Counter(
            "memrelay_read_ahead", "Memories read before they were asked for: used, unused, stale", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.prefetch_work = Counter(
            "memrelay_prefetch_work_seconds", "Time spent on predicting and loading ahead", ["occasion"],
            registry=self.registry,
        )  # fmt: skip
        self.prefetch_saved = Counter(
            "memrelay_prefetch_saved_seconds", "Time that questions did not wait for what was loaded ahead", ["part"],
            registry=self.registry,
        )  # fmt: skip

        self.kv_chats = Counter(
            "memrelay_kv_chats", "Answers of local models by where the beginning of their prompt came from: slot, ram, disk, cold",
            ["source"], registry=self.registry,
        )  # fmt: skip
        self.kv_tokens = Counter(
            "memrelay_kv_restored_tokens",
            "Tokens of prompts that a local model had computed before",
            registry=self.registry,
        )
        self.triggers = triggers_counter(self.registry)
        for outcome in ("used", "unused", "stale"):  # they are there before anything was counted
            self.read_ahead.labels(outcome)
        self.prefetch_saved.labels("rows")

    def began(self, proven: Mapping[str, str]) -> None:
        """Count with what a local model began; `proven`: its headers, see upstreams.port."""
        kv, source = proven.get("x-memory-kv", ""), proven.get("x-memory-kv-source", "slot")
        if not kv:
            return
        restored = kv.removeprefix("restored:")
        self.kv_chats.labels("cold" if kv == "cold" else source).inc()
        self.kv_tokens.inc(int(restored) if restored.isdecimal() else 0)

    def fell_back(self, before: str, after: str) -> None:
        """Count that an upstream is asked in another's stead."""
        self.fallbacks.labels(before, after).inc()

    def triggered(self, event: str, outcome: str) -> None:
        """Count a put that followed from an event."""
        self.triggers.labels(event, outcome).inc()

    def rows_read_ahead(self, count: Count) -> None:
        """Count what became of memories that were read ahead."""
        for outcome, number in (("used", count.used), ("unused", count.unused), ("stale", count.stale)):
            if number:
                self.read_ahead.labels(outcome).inc(number)
        if count.saved_s:
            self.prefetch_saved.labels("rows").inc(count.saved_s)


class ExecutorMetrics:
    """What an executor counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.runs = Counter(
            "memrelay_job_runs", "Runs of tasks: done, retry (it raised, and is tried again), failed (a dead letter)",
            ["task", "outcome"], registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "memrelay_job_seconds", "How long a run took, its wait for a place not counted", ["task"], buckets=_LONG_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.tokens = Counter(
            "memrelay_extraction_tokens", "What the extraction model was sent (prompt) and sent back (completion)", ["kind"],
            registry=self.registry,
        )  # fmt: skip
        self.states = Counter(
            "memrelay_kv_activations", "Beginnings of sessions that were to be read ahead, by what became of it", ["state"],
            registry=self.registry,
        )  # fmt: skip
        self.triggers = triggers_counter(self.registry)
        for kind in _KINDS:
            self.tokens.labels(kind)

    def ran(self, task: str, outcome: str, seconds: float, result: Mapping[str, Any]) -> None:
        """Count a run of a task."""
        self.runs.labels(task, outcome).inc()
        self.seconds.labels(task).observe(seconds)
        if task == "activate":
            for state in STATES:
                self.states.labels(state).inc(result.get(state, 0))
        if task == "learn":
            for kind in _KINDS:
                self.tokens.labels(kind).inc(result.get(f"{kind}_tokens", 0))

    def triggered(self, event: str, outcome: str) -> None:
        """Count a put that followed from an event."""
        self.triggers.labels(event, outcome).inc()
