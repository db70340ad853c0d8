"""Counters and histograms in Prometheus's form; each process has its own registry, made with the app."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


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

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
