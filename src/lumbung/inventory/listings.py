"""What changes the set of listings, or who serves them: imports, remaps, removals, store-warehouse links.

Each function works on one chunk in the caller's transaction, under the variants' locks, like an update does. A crash
between two chunks leaves a state that the next run of the same change finishes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lumbung.db import catalogue, stores
from lumbung.db import stock as db
from lumbung.db.catalogue import ListingRow
from lumbung.db.query import Connection
from lumbung.errors import LockBusy
from lumbung.inventory import stock
from lumbung.inventory.variant_stock import ListingStock, VariantStock

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Mapped:
    """One row of an import: `sku` is offered in a store as `remote_variant` (canonical JSON text)."""

    sku: str
    store_id: int
    channel: str
    remote_variant: str


@dataclass(frozen=True, slots=True)
class Imported:
    """How many listings are new, were there already, and were moved from another SKU."""

    added: int
    unchanged: int
    remapped: int


async def import_listings(
    connection: Connection,
    tenant_id: int,
    rows: Sequence[Mapped],
    *,
    remap_doubt_seconds: float,
    submitted_seconds: float,
) -> Imported:
    """Map remote variants to SKUs that exist, no place twice. A place that another SKU has is remapped.

    A remap retires the listing and makes a new one, so that an answer in flight can never mark the wrong one. Its call
    may still take effect, for `remap_doubt_seconds` or as long as the store says, and what was submitted for
    `submitted_seconds` more: the new listing's first delivery is confirmed after that. So it is with a place whose
    listing was removed a while ago.
    """
    places = list(map(_place, rows))
    held = await catalogue.live_listings(connection, tenant_id, places)
    skus = await catalogue.variants_by_sku(connection, tenant_id, [row.sku for row in rows])
    ids = {*skus.values(), *(listing.variant_id for listing in held.values())}
    variants = await _locked(connection, tenant_id, ids)
    held = await catalogue.live_listings(connection, tenant_id, places)
    if any((tenant_id, listing.variant_id) not in variants for listing in held.values()):
        raise LockBusy("Another import maps the same listings at this moment; try again", retry_after_seconds=1)
    moved = {held[p] for row, p in zip(rows, places, strict=True) if p in held and held[p].variant_id != skus[row.sku]}
    fresh = [row for row, p in zip(rows, places, strict=True) if p not in held or held[p] in moved]
    [(version, _)], _ = await db.take_ids(connection, versions=1)
    for listing in moved:
        variant = variants[tenant_id, listing.variant_id]
        variant.remove(variant.listings[listing.id], "The listing was mapped to another SKU", version=version)
    await catalogue.retire_listings(connection, tenant_id, [listing.id for listing in moved])
    added = await _add(connection, variants, tenant_id, fresh, skus, version)
    calling = await _calling(
        connection, variants, tenant_id, moved, seconds=remap_doubt_seconds, submitted_seconds=submitted_seconds
    )
    doubted = await catalogue.doubted_places(connection, tenant_id, list(map(_place, fresh)))
    for listing in moved:
        doubted[_place(listing)] = max(doubted.get(_place(listing), 0.0), calling.get(listing.id, 0.0))
    await stock.write(connection, variants.values())
    doubts = {row.id: seconds for row in added if (seconds := doubted.get(_place(row), 0.0)) > 0}
    await catalogue.doubt_states(connection, tenant_id, doubts)
    return Imported(len(fresh) - len(moved), len(rows) - len(fresh), len(moved))


def _place(row: Mapped | ListingRow) -> tuple[int, str]:
    return row.store_id, row.remote_variant


async def remove_listings(
    connection: Connection,
    tenant_id: int,
    listings: Iterable[ListingRow],
    message: str,
    *,
    remap_doubt_seconds: float,
    submitted_seconds: float,
) -> int:
    """Retire listings and end their items at once as failed with `message`; returns how many were still there. For how
    long their calls may still take effect is kept, for who has their places next."""
    listings = list(listings)
    variants = await _locked(connection, tenant_id, {listing.variant_id for listing in listings})
    [(version, _)], _ = await db.take_ids(connection, versions=1)
    removed = []
    for listing in listings:
        variant = variants[tenant_id, listing.variant_id]
        if listing.id in variant.listings:
            variant.remove(variant.listings[listing.id], message, version=version)
            removed.append(listing)
    await catalogue.retire_listings(connection, tenant_id, [listing.id for listing in removed])
    calling = await _calling(
        connection, variants, tenant_id, removed, seconds=remap_doubt_seconds, submitted_seconds=submitted_seconds
    )
    await stock.write(connection, variants.values())
    await catalogue.doubt_states(connection, tenant_id, calling)
    return len(removed)


async def recompute(connection: Connection, tenant_id: int, listings: Sequence[ListingRow]) -> None:
    """Bring listings in line with levels, figures and links as they are now. What does not change is not sent."""
    variants = await _locked(connection, tenant_id, {listing.variant_id for listing in listings})
    [(version, _)], _ = await db.take_ids(connection, versions=1)
    for listing in listings:
        variant = variants[tenant_id, listing.variant_id]
        if listing.id in variant.listings:
            variant.recompute(variant.listings[listing.id], version=version)
    await stock.write(connection, variants.values())


async def _locked(connection: Connection, tenant_id: int, ids: Iterable[int]) -> dict[Pair, VariantStock]:
    skus = await db.lock_variants_by_id(connection, tenant_id, ids)
    variants = {(tenant_id, id_): VariantStock(tenant_id, id_, sku) for id_, sku in skus.items()}
    await stock.load(connection, variants)
    return variants


async def _calling(
    connection: Connection,
    variants: Mapping[Pair, VariantStock],
    tenant_id: int,
    retired: Iterable[ListingRow],
    *,
    seconds: float,
    submitted_seconds: float,
) -> dict[int, float]:
    """Those for which a call may be under way or may yet take effect, and for how many seconds.

    Looked at under the locks that `stock.write` takes, all of them and in their order: a call that begins later finds
    the listing cleared.
    """
    ids = [listing.id for listing in retired]
    if not ids:
        return {}
    written = {(v.tenant_id, id_) for v in variants.values() for id_ in (*v.changes.due, *v.changes.cleared)}
    await db.lock_states(connection, written)
    return await catalogue.calling_states(
        connection, tenant_id, ids, seconds=seconds, submitted_seconds=submitted_seconds
    )


async def _add(
    connection: Connection,
    variants: Mapping[Pair, VariantStock],
    tenant_id: int,
    rows: Sequence[Mapped],
    skus: Mapping[str, int],
    version: int,
) -> list[ListingRow]:
    channels = {row.store_id: row.channel for row in rows}
    added = await catalogue.add_listings(
        connection, tenant_id, [(skus[row.sku], row.store_id, row.remote_variant) for row in rows]
    )
    # Read afterwards: the new rows hold off changes of the links, whose recomputing will then find them.
    serving = {
        store_id: await stores.links_of(connection, tenant_id=tenant_id, store_id=store_id) for store_id in channels
    }
    for row in added:
        listing = ListingStock(row.id, row.store_id, channels[row.store_id], serving[row.store_id])
        variant = variants[tenant_id, row.variant_id]
        variant.listings[row.id] = listing
        variant.recompute(listing, version=version)
    return added
