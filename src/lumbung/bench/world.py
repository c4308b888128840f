"""Whom a benchmark's load is of: tenants with SKUs, each shown in all of its tenant's stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BenchTenant:
    """`channels`: the codes that its updates name, of its stores; `store_ids`: of all of them."""

    id: int
    partner_id: str
    secret: str = field(repr=False)
    skus: Sequence[str] = field(repr=False)
    store_ids: tuple[int, ...]
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BenchWorld:
    tenants: tuple[BenchTenant, ...]

    @property
    def listings(self) -> int:
        return sum(len(tenant.skus) * len(tenant.store_ids) for tenant in self.tenants)

    @property
    def store_ids(self) -> list[int]:
        return [store_id for tenant in self.tenants for store_id in tenant.store_ids]
