"""The world that is put under fire: merchants, their SKUs, and where each is shown. A plan; nothing is made here."""

from __future__ import annotations

from dataclasses import dataclass, field

from lumbung.torture.quantities import Shape

SLACK_LIFETIMES = 3.0
WAREHOUSES = ("default", "surabaya")  # in the order of their place in a quantity

Place = tuple[str, str, str]
"""A listing as the marketplaces name it: channel, store and merchant SKU (unique within a store here)."""


@dataclass(frozen=True, slots=True)
class StorePlan:
    """`warehouses`: who serves it, each with its location there or None, in the order of WAREHOUSES.

    `poison`: why nothing of it can be sold: "" for a healthy one.
    """

    id: int
    tenant: str
    channel: str
    code: str
    warehouses: dict[str, str | None]
    calls_per_second: float
    poison: str = ""


@dataclass(frozen=True, slots=True)
class TenantPlan:
    id: int
    name: str
    partner_id: str
    secret: str = field(repr=False)
    skus: tuple[str, ...] = ()
    stores: tuple[StorePlan, ...] = ()


@dataclass(frozen=True, slots=True)
class World:
    """`poisoned`: listings that can never be told anything; by place, why."""

    tenants: tuple[TenantPlan, ...]
    poisoned: dict[Place, str] = field(default_factory=dict)

    @property
    def stores(self) -> tuple[StorePlan, ...]:
        return tuple(store for tenant in self.tenants for store in tenant.stores)

    def longest_wait(self, store: StorePlan, lifetime: float) -> float:
        """Seconds: every listing of the store twice at its rate, and some for processes that begin or are busy."""
        return 2 * len(self.tenant_of(store).skus) / store.calls_per_second + SLACK_LIFETIMES * lifetime

    def tenant_of(self, store: StorePlan) -> TenantPlan:
        return next(tenant for tenant in self.tenants if tenant.name == store.tenant)


def shape_of(sku: str) -> Shape:
    """Every other SKU rises; the others have zeros and falls."""
    return Shape.RISING if int(sku.removeprefix("sku")) % 2 else Shape.FALLING
