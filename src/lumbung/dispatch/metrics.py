"""What a worker counts, in Prometheus' format. Every process has its own; a registry is no module-level state."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lumbung.model import LATENCY_SECONDS


class WorkerMetrics:
    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.due = Gauge(
            "lumbung_due_listings", "Listings that are due, of the whole installation", ["lane"], registry=registry
        )
        self.waiting = Gauge(
            "lumbung_waiting_listings",
            "Listings that wait for a time, of the whole installation",
            ["reason"],
            registry=registry,
        )
        self.parked = Gauge(
            "lumbung_parked_listings", "Listings that wait for a person, of the whole installation", registry=registry
        )
        self.oldest_due = Gauge(
            "lumbung_oldest_due_seconds", "Age of the oldest listing that is due", registry=registry
        )
        self.in_flight = Gauge("lumbung_calls_in_flight", "Calls under way", ["channel"], registry=registry)
        self.stores_held = Gauge("lumbung_stores_held", "Stores that this process sends for", registry=registry)
        self.breakers_open = Gauge(
            "lumbung_breakers_open", "Stores of this process that cannot be reached", registry=registry
        )
        self.database_away = Gauge(
            "lumbung_database_away", "1 while this process cannot reach the database", registry=registry
        )
        self.backlog = Gauge("lumbung_results_waiting", "Results that wait to be written", registry=registry)
        self.lease_changes = Counter("lumbung_lease_changes", "Leases by what happened", ["what"], registry=registry)
        self.attempts = Counter(
            "lumbung_attempts", "Listings of calls, by outcome", ["channel", "outcome"], registry=registry
        )
        self.accept_to_delivered = Histogram(
            "lumbung_accept_to_delivered_seconds",
            "From acceptance to delivery, items that ended by a delivery",
            buckets=LATENCY_SECONDS,
            registry=registry,
        )
