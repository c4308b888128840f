"""What an API process counts for Prometheus. One object a process, made by the composition root."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class ApiMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "lumbung_api_requests", "Requests answered", ["route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "lumbung_api_request_seconds", "Time to answer", ["route"], buckets=BUCKETS, registry=self.registry
        )
        self.queued = Gauge("lumbung_accept_queued", "Updates that wait to be committed", registry=self.registry)
        self.group_updates = Histogram(
            "lumbung_accept_group_updates",
            "Updates committed together",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )
        self.commit_seconds = Histogram(
            "lumbung_accept_commit_seconds", "Time to commit a group", buckets=BUCKETS, registry=self.registry
        )
        self.splits = Counter(
            "lumbung_accept_splits", "Groups split because a row was locked or bad", registry=self.registry
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)
