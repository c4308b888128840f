"""A small world with what was done in it, for the auditor's tests."""

from __future__ import annotations

from lumbung.torture.clearness import Clearness
from lumbung.torture.evidence import Call, Write
from lumbung.torture.journal import Acknowledged, Deed, Journal
from lumbung.torture.world import StorePlan, TenantPlan, World

WORKER, OTHER = "127.0.1.1", "127.0.1.2"
SKUS = ("sku1", "sku2", "sku3")
STORE = StorePlan(1, "Toko 1", "blib", "TOA-1", {"default": None}, 10.0)
BOTH = StorePlan(2, "Toko 1", "blib", "TOB-1", {"default": None, "surabaya": None}, 10.0)
TENANT = TenantPlan(1, "Toko 1", "PARTNER1", "secret", SKUS, (STORE, BOTH))
WORLD = World((TENANT,))
LIFETIME, TIMEOUT = 2.0, 0.8


def acknowledged(n: int, *, sku: str = "sku1", warehouse: str = "default", again: str | None = None) -> Acknowledged:
    """The nth update, sent n seconds after the beginning."""
    return Acknowledged(("Toko 1", sku, warehouse), n, f"code-{sku}-{warehouse}-{n}", float(n), n + 0.1, 1, again)


def journal(*updates: Acknowledged, deeds: tuple[Deed, ...] = (), calm_until: float = 0.0) -> Journal:
    return Journal([*updates], [], [*deeds], calm_until=calm_until)


def write(call: int, quantity: int, *, at: float = 50.0, store: str = "TOA-1", sku: str = "sku1") -> Write:
    return Write(call, at, "blib", store, "", sku, quantity, call)


def call(
    received: int, at: float = 50.0, *, caller: str = WORKER, ms: float = 10.0, status: int = 200, fault: str = ""
) -> Call:
    return Call(at, "blib", "TOA-1", caller, received, ("TOA-1-00001",), "/stock", status, ms, fault)


def clearness(*deeds: Deed) -> Clearness:
    return Clearness(deeds, (), [WORKER, OTHER], lifetime=LIFETIME, timeout=TIMEOUT)
