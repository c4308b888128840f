"""`lumbung listing`: which variant is offered where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumbung.channels import registry
from lumbung.cli import audit, bulk, find, names, output, session
from lumbung.cli.bulk import Kind, Report, Wrong
from lumbung.cli.variant import GoodRowsOption
from lumbung.db import catalogue, stores, wake
from lumbung.db.catalogue import ListingRow
from lumbung.db.query import Connection
from lumbung.errors import BadRequest, NotFound, UsageError
from lumbung.inventory.listings import Mapped, import_listings, remove_listings

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

app = typer.Typer(help="Which variant is offered where.", no_args_is_help=True)

IMPORT_COLUMNS = ("sku", "store", "remote_variant")
COLUMNS = {
    "id": "ID",
    "sku": "SKU",
    "store": "STORE",
    "remote_variant": "REMOTE VARIANT",
    "state": "STATE",
    "quantity_due": "DUE",
    "quantity_delivered": "DELIVERED",
    "delivered_at": "DELIVERED AT",
    "park_reason": "PARKED BECAUSE",
}
LIMIT_MAX = 10_000
REMOVED = "The listing was removed"


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of a tenant: (id, channel) by name, and by id written as digits where no name is in the way."""

    known: Mapping[str, tuple[int, str]]

    @classmethod
    async def read(cls, connection: Connection, tenant_id: int) -> Stores:
        every = await stores.list_stores(connection, tenant_id)
        by_id = {str(row["id"]): (row["id"], row["channel"]) for row in every}
        return cls(by_id | {row["name"]: (row["id"], row["channel"]) for row in every})


@app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Columns: sku, store, remote_variant.")],
    tenant: session.TenantOption = None,
    good_rows: GoodRowsOption = False,
) -> None:
    """Say which SKU is offered in a store as what. A place that another SKU has is moved to the new one."""
    report = session.run(context, partial(_import, file, tenant, good_rows))
    counts = report.counts
    output.say(
        f"Imported {counts.total()} listings: {counts['added']} new, {counts['remapped']} moved from another SKU, "
        f"{counts['unchanged']} there already"
    )
    report.refuse_skipped(file)


async def _import(file: Path, tenant: str | None, good_rows: bool, hub: Installation) -> Report:
    async with hub.pool.connection() as connection:
        tenant_id = (await find.tenant(connection, tenant)).id
        known = await Stores.read(connection, tenant_id)

    async def check(connection: Connection, rows: list[tuple[str, ...]]) -> list[Mapped | Wrong]:
        skus = await catalogue.variants_by_sku(
            connection, tenant_id, [sku for sku, _, _ in rows if not names.problem_of(sku)]
        )
        return [_mapped(known, skus, *row) for row in rows]

    async def write(connection: Connection, rows: list[Mapped]) -> Counter[str]:
        imported = await import_listings(
            connection,
            tenant_id,
            rows,
            remap_doubt_seconds=hub.settings.remap_doubt_seconds,
            submitted_seconds=hub.settings.submitted_seconds_max,
        )
        return Counter(added=imported.added, unchanged=imported.unchanged, remapped=imported.remapped)

    async def after(rows: list[Mapped]) -> None:
        await wake.try_notify(hub.pool, {row.store_id for row in rows})

    kind = Kind(
        columns=IMPORT_COLUMNS,
        action="listing.import",
        tenant_id=tenant_id,
        check=check,
        identity=_place,
        twice="the same place",
        write=write,
        after=after,
    )
    return await bulk.import_file(hub, kind, file, good_rows=good_rows)


def _place(row: Mapped) -> str:
    return f"{row.store_id} {row.remote_variant}"


def _mapped(known: Stores, skus: Mapping[str, int], sku: str, store: str, remote_variant: str) -> Mapped | Wrong:
    problem = names.problem_of(sku)
    if problem is not None:
        return Wrong(f"sku {problem}")
    if sku not in skus:
        return Wrong(f"sku {sku!r} is not in the catalogue; add it with `lumbung variant import`")
    found = known.known.get(store.strip())
    if found is None:
        return Wrong(f"there is no store {store.strip()!r}")
    store_id, code = found
    channel = registry.find(code)
    if channel is None:
        return Wrong(f"store {store.strip()!r} is on {code}, which has no connector in this version")
    try:
        return Mapped(sku, store_id, code, channel.remote_variant(remote_variant))
    except BadRequest as error:
        return Wrong(str(error))


@app.command("remove")
def remove(
    context: typer.Context,
    ids: Annotated[list[int] | None, typer.Option("--id", help="A listing's id; may be repeated.")] = None,
    store: Annotated[str | None, typer.Option(help="The store's name or id.")] = None,
    remote_variant: Annotated[str | None, typer.Option(help="What it is there.")] = None,
    tenant: session.TenantOption = None,
) -> None:
    """End listings: nothing is sent for them any more, and their open items end at once."""
    if bool(ids) == (store is not None and remote_variant is not None) or (store is None) != (remote_variant is None):
        raise UsageError("Say which: --id (once or more), or --store with --remote-variant")
    count = session.run(context, partial(_remove, tenant, ids, store, remote_variant))
    output.say(f"Removed {count} listing{'' if count == 1 else 's'}")


async def _remove(
    tenant: str | None, ids: list[int] | None, store: str | None, remote_variant: str | None, hub: Installation
) -> int:
    async def work() -> int:
        async with session.locking(hub.pool, hub.settings) as connection:
            tenant_id = (await find.tenant(connection, tenant)).id
            if store is not None and remote_variant is not None:
                listings = [await _at(connection, tenant_id, store, remote_variant)]
            else:
                listings = await _with_ids(connection, tenant_id, ids or [])
            count = await remove_listings(
                connection,
                tenant_id,
                listings,
                REMOVED,
                remap_doubt_seconds=hub.settings.remap_doubt_seconds,
                submitted_seconds=hub.settings.submitted_seconds_max,
            )
            for listing in listings:
                place = {"store_id": listing.store_id, "remote_variant": listing.remote_variant}
                await audit.write(connection, tenant_id, "listing.remove", f"listing:{listing.id}", **place)
        return count

    return await session.retried(work)


async def _with_ids(connection: Connection, tenant_id: int, ids: list[int]) -> list[ListingRow]:
    listings = await catalogue.listings_by_id(connection, tenant_id, ids)
    unknown = sorted(set(ids) - {listing.id for listing in listings})
    if unknown:
        raise NotFound(f"There is no listing {', '.join(map(str, unknown))}; nothing was removed")
    return listings


async def _at(connection: Connection, tenant_id: int, reference: str, remote_variant: str) -> ListingRow:
    store = await find.store(connection, tenant_id, reference)
    channel = registry.find(store.channel)
    place = (store.id, remote_variant if channel is None else channel.remote_variant(remote_variant))
    listing = (await catalogue.live_listings(connection, tenant_id, [place])).get(place)
    if listing is None:
        raise NotFound(f"Store {store.name!r} has no listing {place[1]}")
    return listing


@app.command("list")
def list_(
    context: typer.Context,
    store: Annotated[str | None, typer.Option(help="Only of this store (name or id).")] = None,
    sku: Annotated[str | None, typer.Option(help="Only of this SKU.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX)] = 100,
    tenant: session.TenantOption = None,
    as_json: session.JsonOption = False,
) -> None:
    """Show listings and what they are to show."""
    rows = session.run(context, partial(_list, tenant, store, sku, limit + 1))
    output.listing(rows[:limit], COLUMNS, as_json=as_json)
    if len(rows) > limit:
        output.note(f"There are more than {limit}; see more with --limit")


async def _list(tenant: str | None, store: str | None, sku: str | None, limit: int, hub: Installation) -> list[Any]:
    async with hub.pool.connection() as connection:
        tenant_id = (await find.tenant(connection, tenant)).id
        store_id = None if store is None else (await find.store(connection, tenant_id, store)).id
        return await catalogue.list_listings(connection, tenant_id=tenant_id, store_id=store_id, sku=sku, limit=limit)
