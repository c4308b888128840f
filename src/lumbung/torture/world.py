"""The world that is put under fire: merchants, their SKUs, and where each is shown. A plan; nothing is made here."""

from __future__ import annotations

from dataclasses import dataclass, field

from lumbung.torture.quantities import Shape

SLACK_LIFETIMES = 3.0
WAREHOUSES = ("default", "surabaya")  # in the order of their place in a quantity

Place = tuple[str, str, str]
"""A listing as the marketplaces name it: channel, store and merchant SKU (unique within a store here)."""


@dataclass(frozen=True, slots=True)
class ApplicationPlan:
    """An app key that stores of several merchants share. `name`: as its marketplace knows it."""

    channel: str
    name: str
    calls_per_second: float
    burst: int

    @property
    def calls_at_once_max(self) -> float:
        """What comes at once at most: each process reserves a second's worth ahead (dispatch/allowance.py); and a
        second's worth for the time that the database's answer takes, and the way to the marketplace."""
        return self.burst + 2 * self.calls_per_second


@dataclass(frozen=True, slots=True)
class StorePlan:
    """`warehouses`: who serves it, each with its location there or None, in the order of WAREHOUSES.

    `poison`: why nothing of it can be sold: "" for a healthy one. `application`: which one it shares.
    """

    id: int
    tenant: str
    channel: str
    code: str
    warehouses: dict[str, str | None]
    calls_per_second: float
    poison: str = ""
    application: ApplicationPlan | None = None


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

    @property
    def applications(self) -> tuple[ApplicationPlan, ...]:
        """Each once."""
        return tuple(dict.fromkeys(store.application for store in self.stores if store.application is not None))

    def longest_wait(self, store: StorePlan, lifetime: float) -> float:
        """Seconds: every listing of the store twice at its rate, and some for processes that begin or are busy."""
        return 2 * len(self.tenant_of(store).skus) / self._rate(store) + SLACK_LIFETIMES * lifetime

    def _rate(self, store: StorePlan) -> float:
        """Its own, or its share of what the stores of its application may send together."""
        if store.application is None:
            return store.calls_per_second
        sharing = sum(other.application == store.application for other in self.stores)
        return min(store.calls_per_second, store.application.calls_per_second / sharing)

    def tenant_of(self, store: StorePlan) -> TenantPlan:
        return next(tenant for tenant in self.tenants if tenant.name == store.tenant)


def shape_of(sku: str) -> Shape:
    """Every other SKU rises; the others have zeros and falls."""
    return Shape.RISING if int(sku.removeprefix("sku")) % 2 else Shape.FALLING
