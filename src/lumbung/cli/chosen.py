"""Which listings a command is about: those of a store, of some SKUs, or all of a tenant."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated

import typer

from lumbung.cli import find
from lumbung.db import catalogue, stores
from lumbung.db.query import Connection
from lumbung.db.stores import StoreRow
from lumbung.errors import NotFound, UsageError
from lumbung.model import StoreMode

StoreOption = Annotated[str | None, typer.Option("--store", help="Only of this store (name or id).")]
SkusOption = Annotated[list[str] | None, typer.Option("--sku", help="Only of this SKU; may be repeated.")]
AllOption = Annotated[bool, typer.Option("--all", help="Of all stores and SKUs of the tenant.")]


@dataclass(frozen=True, slots=True)
class Chosen:
    """`stores`: those that are meant, in whatever mode; `store`: the one that was named."""

    tenant_id: int
    store: StoreRow | None
    stores: tuple[StoreRow, ...]
    skus: list[str] | None = None

    @property
    def subject(self) -> str:
        """What the audit calls it."""
        return f"tenant:{self.tenant_id}" if self.store is None else f"store:{self.store.id}"

    @property
    def detail(self) -> dict[str, object]:
        return {} if self.skus is None else {"skus": self.skus}


def refuse_nothing(store: str | None, skus: list[str] | None, every: bool) -> None:
    """Raises UsageError unless it was said which listings are meant."""
    if every and (store is not None or skus):
        raise UsageError("--all goes neither with --store nor with --sku: give only one of them")
    if not every and store is None and not skus:
        raise UsageError("Say which: --store, --sku (once or more), or --all")


async def find_chosen(
    connection: Connection, tenant: str | None, store: str | None, skus: list[str] | None = None
) -> Chosen:
    tenant_id = (await find.tenant(connection, tenant)).id
    if skus:
        known = await catalogue.variants_by_sku(connection, tenant_id, skus)
        unknown = [sku for sku in skus if sku not in known]
        if unknown:
            raise NotFound(f"There is no SKU {unknown[0]!r} in the catalogue")
    if store is not None:
        named = await find.store(connection, tenant_id, store)
        return Chosen(tenant_id, named, (named,), skus or None)
    every = await stores.unretired_stores(connection)
    return Chosen(tenant_id, None, tuple(row for row in every if row.tenant_id == tenant_id), skus or None)


def not_live(store: StoreRow, tenant: str | None = None) -> str | None:
    """Why nothing is sent to a store, and what to do about it; None: it is live. `tenant`: as the operator named it."""
    more = "" if tenant is None else f" --tenant {shlex.quote(tenant)}"
    match store.mode:
        case StoreMode.LIVE:
            return None
        case StoreMode.PAUSED:
            return f"Store {store.name!r} is paused ({store.pause_reason}): `lumbung store resume {store.id}{more}`"
        case StoreMode.OBSERVE:
            return f"Store {store.name!r} is observed, nothing is sent to it: `lumbung store live {store.id}{more}`"
