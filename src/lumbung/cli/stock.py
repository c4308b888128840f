"""`lumbung stock`: what a SKU's listings show, and why."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from lumbung.cli import find, output, session
from lumbung.db import catalogue, stores
from lumbung.db.catalogue import Row
from lumbung.errors import NotFound
from lumbung.inventory.sellable import sellable
from lumbung.model import StockLevel

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

app = typer.Typer(help="What a SKU's listings show, and why.", no_args_is_help=True)

WAREHOUSE_COLUMNS = {
    "warehouse": "WAREHOUSE",
    "available": "AVAILABLE",
    "buffer": "BUFFER",
    "reserved": "RESERVED",
    "sellable": "SELLABLE",
    "sync": "SYNC",
    "figures": "FIGURES",
    "updated_at": "UPDATED",
}
LISTING_COLUMNS = {
    "id": "LISTING",
    "store": "STORE",
    "remote_variant": "REMOTE VARIANT",
    "why": "WHY",
    "due": "DUE",
    "delivered": "DELIVERED",
    "state": "STATE",
    "park_reason": "PARKED BECAUSE",
    "last_message": "LAST MESSAGE",
}
LISTINGS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Known:
    """What the database knows of a SKU. `serving`: store id -> names of the warehouses that serve it."""

    levels: list[Row]
    listings: list[Row]
    contributions: list[Row]
    serving: dict[int, list[str]]


@app.callback()
def stock() -> None:
    """What a SKU's listings show, and why."""


@app.command("show")
def show(
    context: typer.Context, sku: str, tenant: session.TenantOption = None, as_json: session.JsonOption = False
) -> None:
    """Show the inputs of what each listing of a SKU is to show, what was delivered, and what is in the way."""
    known = session.run(context, partial(_known, tenant, sku))
    document = describe(sku, known)
    if as_json:
        output.document(document)
        return
    shown = [{**level, "figures": _figures(level["figures"])} for level in document["warehouses"]]
    output.listing(shown, WAREHOUSE_COLUMNS, as_json=False)
    output.listing(document["listings"], LISTING_COLUMNS, as_json=False)


async def _known(tenant: str | None, sku: str, hub: Installation) -> Known:
    async with hub.pool.connection() as connection:
        tenant_id = (await find.tenant(connection, tenant)).id
        if not await catalogue.variants_by_sku(connection, tenant_id, [sku]):
            raise NotFound(f"There is no SKU {sku!r} in the catalogue")
        served = await stores.list_stores(connection, tenant_id)
        return Known(
            levels=await catalogue.stock_of_sku(connection, tenant_id=tenant_id, sku=sku),
            listings=await catalogue.list_listings(
                connection, tenant_id=tenant_id, store_id=None, sku=sku, limit=LISTINGS_MAX
            ),
            contributions=await catalogue.contributions_of_sku(connection, tenant_id=tenant_id, sku=sku),
            serving={row["id"]: sorted(row["warehouses"]) for row in served},
        )


def describe(sku: str, known: Known) -> dict[str, Any]:
    """The document that `--json` prints."""
    levels = {row["warehouse"]: {**row, "sellable": _sellable(row)} for row in known.levels}
    held = {(row["listing_id"], row["warehouse"]): row for row in known.contributions}
    listings = []
    for row in known.listings:
        warehouses = [*known.serving.get(row["store_id"], [])]
        warehouses += [name for (id_, name) in held if id_ == row["id"] and name not in warehouses]
        parts = [_part(name, row["channel"], levels.get(name), held.get((row["id"], name))) for name in warehouses]
        listings.append(_listing(row, parts))
    return {"sku": sku, "warehouses": list(levels.values()), "listings": listings}


def _listing(row: Row, parts: list[dict[str, Any]]) -> dict[str, Any]:
    given = [part["quantity"] for part in parts if part["quantity"] is not None]
    return {
        "id": row["id"],
        "store_id": row["store_id"],
        "store": row["store"],
        "channel": row["channel"],
        "remote_variant": row["remote_variant"],
        "contributions": parts,
        "sum": sum(given) if given else None,
        "why": _sentence(parts, given),
        "due": row["quantity_due"],
        "delivered": row["quantity_delivered"],
        "delivered_at": row["delivered_at"],
        "state": row["state"],
        "park_reason": row["park_reason"],
        "last_outcome": row["last_outcome"],
        "last_message": row["last_message"],
    }


def _part(warehouse: str, channel: str, level: Row | None, held: Row | None) -> dict[str, Any]:
    """What one warehouse adds to a listing, and why."""
    return {
        "warehouse": warehouse,
        "quantity": held["quantity"] if held else None,
        "location": held["location"] if held else None,
        "why": _why(channel, level),
    }


def _why(channel: str, level: Row | None) -> str:
    if level is None:
        return "no stock was ever sent"
    if level["sync"]:
        return f"sellable: {level['available']} - {level['buffer']} - {level['reserved']}"
    figure = level["figures"].get(channel)
    if figure is None:
        return f"no figure for {channel}, and sync is off"
    if figure["named"]:
        return f"figure of {channel}"
    return f"left for {channel} when sync was switched off"


def _sentence(parts: list[dict[str, Any]], given: list[int]) -> str:
    """`12 = default 7 (sellable: 8 - 1 - 0) + bandung 5 (figure of blib)`."""
    if not parts:
        return "nothing: no warehouse serves the store"
    said = [f"{part['warehouse']} {output.cell(part['quantity'])} ({part['why']})" for part in parts]
    return f"{sum(given) if given else 'nothing'} = {' + '.join(said)}"


def _sellable(row: Row) -> int:
    return sellable(StockLevel(row["available"], row["buffer"], row["sync"], row["reserved"]))


def _figures(figures: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {code: f"{held['quantity']}{'' if held['named'] else ' (left)'}" for code, held in figures.items()}
