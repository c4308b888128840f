"""Accepting stock updates: the one use case that partners call.

A group of requests is accepted in one transaction that the caller opens and commits:

    1. lock the variants, sorted, in a statement of its own
    2. read their levels, figures, listings and contributions
    3. decide, in the order of the requests (inventory/variant_stock.py, inventory/sellable.py)
    4. write from arrays; ids and versions are taken after the lock
    5. (the caller) commit, then answer everyone

Why step 1 stands alone: a statement that locks and reads at once reads the snapshot from before it waited. Two
warehouses of one SKU updated at the same moment would then each add the other's old quantity, for ever.

A request that is refused (unknown SKU, over a limit, a used key) fails alone: its answer is the error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from lumbung.channels.catalogue import CATALOGUE
from lumbung.db import stats
from lumbung.db import stock as db
from lumbung.db.query import Connection
from lumbung.db.stats import Counts
from lumbung.errors import BadRequest, Conflict, LumbungError, NotFound, Problem
from lumbung.inventory.sellable import lane_of
from lumbung.inventory.variant_stock import (
    Contribution,
    EndedItem,
    ListingStock,
    NewItem,
    StoredItem,
    VariantStock,
)
from lumbung.model import Figure, StockLevel, StockLimit, StockUpdate, Submission, Tenant, UnknownSku

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What answers an accepted update. `due`: by store, the listings that are due now, with their lanes; `update_id` 0
    for a repeated key."""

    transaction_code: UUID
    tenant_id: int
    update_id: int
    created_at: datetime | None
    due: Mapping[int, Mapping[int, int]]


@dataclass(frozen=True, slots=True)
class Rules:
    """`connectors`: channel codes that can be delivered to. Times in seconds."""

    connectors: frozenset[str]
    idempotency_key_seconds: int


@dataclass(slots=True)
class _Request:
    """A submission on its way through the group. `warehouse_id` -1: there is no such warehouse. `out_of_reach`: named
    channels on which the warehouse serves no listing."""

    submission: Submission
    tenant: Tenant
    warehouse_id: int
    variant: VariantStock | None = None
    refusal: LumbungError | None = None
    receipt: Receipt | None = None
    out_of_reach: Sequence[str] = ()
    items: list[NewItem] | None = None
    applied: bool = True
    replaced: StockLevel | None = None
    version: int = 0
    at: datetime | None = None

    @property
    def update(self) -> StockUpdate:
        return self.submission.update

    @property
    def open(self) -> bool:
        return self.refusal is None and self.receipt is None


async def accept(
    connection: Connection, submissions: Sequence[Submission], rules: Rules
) -> list[Receipt | LumbungError]:
    """Accept a group; returns for each submission its receipt, or the error that answers it."""
    requests = await _resolve(connection, submissions)
    await _lock(connection, requests)
    variants = {(r.variant.tenant_id, r.variant.id): r.variant for r in requests if r.open and r.variant}
    await load(connection, variants)
    _refuse_over_limit(requests)
    await _claim_keys(connection, requests, rules)
    await _apply(connection, requests, rules)
    await write(connection, variants.values())
    await _write_history(connection, requests)
    return [_result(request) for request in requests]


async def load(connection: Connection, variants: dict[Pair, VariantStock]) -> None:
    """Fill locked variants with their levels, figures, live listings and contributions."""
    if not variants:
        return
    keys = sorted(variants)
    for row in await db.read(connection, "read_stock", keys):
        variant, warehouse_id = variants[row["tenant_id"], row["variant_id"]], row["warehouse_id"]
        if row["channel"] is None:
            variant.levels[warehouse_id] = StockLevel(
                row["available"], row["buffer"], row["sync"], row["reserved"], row["newest_as_of"]
            )
        else:
            variant.figures.setdefault(warehouse_id, {})[row["channel"]] = Figure(row["figure"], row["named"])
    for row in await db.read(connection, "read_listings", keys):
        _take_in_link(variants[row["tenant_id"], row["variant_id"]].listings, row)


async def write(connection: Connection, variants: Iterable[VariantStock]) -> None:
    """Write what the variants' changes have gathered, except updates and items. Sorted by key: no deadlocks.

    listing_state comes first: its rows are the ones that the delivery half locks too.
    """
    variants = sorted(variants, key=lambda v: (v.tenant_id, v.id))
    states = sorted(_states(variants))
    cleared = sorted(
        (v.tenant_id, listing, version) for v in variants for listing, version in v.changes.cleared.items()
    )
    if states or cleared:
        await db.lock_states(connection, ((tenant, listing) for tenant, listing, *_ in (*states, *cleared)))
    await db.write(connection, "write_states", states)
    await db.write(connection, "clear_states", cleared)
    await db.write(connection, "drop_waits", [(tenant, listing) for tenant, listing, _ in cleared])
    await db.write_stock(
        connection, contributions=_contributions(variants), levels=_levels(variants), figures=_figures(variants)
    )
    await db.write(
        connection, "drop_contributions", sorted((v.tenant_id, *key) for v in variants for key in v.changes.dropped)
    )
    await db.write(connection, "end_items", sorted(_ended(v.tenant_id, e) for v in variants for e in v.changes.ended))


async def _resolve(connection: Connection, submissions: Sequence[Submission]) -> list[_Request]:
    found = await db.resolve(connection, ((s.tenant_id, s.update.warehouse) for s in submissions))
    requests = []
    for submission in submissions:
        tenant, warehouse_id = found[submission.tenant_id, submission.update.warehouse]
        requests.append(_Request(submission, tenant, -1 if warehouse_id is None else warehouse_id))
    made = [
        (r.tenant.id, r.update.sku)
        for r in requests
        if r.tenant.unknown_sku is UnknownSku.CREATE and r.warehouse_id >= 0
    ]
    if made:
        await db.create_variants(connection, made)
    return requests


async def _lock(connection: Connection, requests: list[_Request]) -> None:
    ids = await db.lock_variants(connection, ((r.tenant.id, r.update.sku) for r in requests))
    stocks: dict[Pair, VariantStock] = {}
    unknown = []
    for request in requests:
        key = (request.tenant.id, request.update.sku)
        if key in ids:
            pair = (request.tenant.id, ids[key])
            request.variant = stocks.setdefault(pair, VariantStock(*pair, sku=request.update.sku))
        else:
            unknown.append(key)
        request.refusal = _unknown(request)
    if unknown:
        await db.count_unknown_skus(connection, unknown)


def _unknown(request: _Request) -> NotFound | None:
    problems = []
    if request.variant is None:
        problems.append(Problem("sku", f"SKU {request.update.sku!r} is not in the catalogue"))
    if request.warehouse_id < 0:
        problems.append(Problem("warehouse", f"Warehouse {request.update.warehouse!r} does not exist"))
    if not problems:
        return None
    return NotFound("; ".join(problem.message for problem in problems), tuple(problems))


def _refuse_over_limit(requests: list[_Request]) -> None:
    for request in requests:
        if request.open and request.variant is not None:
            ceiling = request.variant.sellable_of(request.update, request.warehouse_id)
            problems = over_limit(request.update, request.tenant.channel_stock_limit, ceiling)
            if problems:
                request.refusal = BadRequest("channel_stock is more than there is to sell", problems)


def over_limit(update: StockUpdate, limit: StockLimit, ceiling: int) -> tuple[Problem, ...]:
    """The fields of channel_stock that a tenant's limit does not allow when `ceiling` units can be sold."""
    match limit:
        case StockLimit.NONE:
            return ()
        case StockLimit.EACH:
            return tuple(
                Problem(f"channel_stock[{n}].qty", f"{quantity} is more than the {ceiling} that can be sold")
                for n, quantity in enumerate(update.figures.values())
                if quantity > ceiling
            )
        case StockLimit.TOTAL:
            total = sum(update.figures.values())
            if total <= ceiling:
                return ()
            return (Problem("channel_stock", f"The sum {total} is more than the {ceiling} that can be sold"),)


async def _claim_keys(connection: Connection, requests: list[_Request], rules: Rules) -> None:
    first: dict[tuple[int, str, str], Submission] = {}
    for request in requests:
        if request.open and request.submission.idempotency:
            first.setdefault(_key_of(request.submission), request.submission)
    if not first:
        return
    stands_for = await db.claim_idempotency_keys(
        connection,
        [(*key, s.idempotency.body_hash, s.transaction_code) for key, s in first.items() if s.idempotency],
        seconds=rules.idempotency_key_seconds,
    )
    for request in requests:
        submission = request.submission
        if request.open and submission.idempotency:
            body_hash, code = stands_for[_key_of(submission)]
            if body_hash != submission.idempotency.body_hash:
                request.refusal = Conflict(
                    "This Idempotency-Key was used with another body: use a new key for a new update",
                    (Problem("Idempotency-Key", "was used with another body"),),
                )
            elif code != submission.transaction_code:
                request.receipt = Receipt(code, submission.tenant_id, 0, None, {})


def _key_of(submission: Submission) -> tuple[int, str, str]:
    assert submission.idempotency is not None
    return submission.tenant_id, submission.partner_id, submission.idempotency.key


async def _apply(connection: Connection, requests: list[_Request], rules: Rules) -> None:
    taken = [request for request in requests if request.open]
    if not taken:
        return
    items_max = 0
    for request in taken:
        assert request.variant is not None
        served = request.variant.channels_served_by(request.warehouse_id)
        request.out_of_reach = [channel for channel in request.update.figures if channel not in served]
        items_max += len(served) + len(request.out_of_reach)
    reach = await _reach_of(connection, taken, rules)
    versions, item_ids = await db.take_ids(connection, versions=len(taken), items=items_max)
    ids = iter(item_ids)
    for request, (version, at) in zip(taken, versions, strict=True):
        request.version, request.at = version, at
        _apply_one(request, reach, version, at)
        for item in request.items or ():
            item.id = next(ids)


def _apply_one(request: _Request, reach: dict[tuple[int, str, int], str], version: int, at: datetime) -> None:
    variant, update, warehouse_id = request.variant, request.update, request.warehouse_id
    assert variant is not None
    known = len(variant.changes.items)
    request.replaced = variant.levels.get(warehouse_id)
    request.applied = not variant.is_stale(update, warehouse_id)
    if request.applied:
        variant.apply(update, warehouse_id, version=version, at=at, code=request.submission.transaction_code)
    else:
        variant.refuse_stale(update, warehouse_id, version=version, at=at)
    for channel in request.out_of_reach:
        message = reach[variant.tenant_id, channel, warehouse_id]
        variant.refuse_channel(update, warehouse_id, channel, message, version=version, at=at)
    request.items = variant.changes.items[known:]
    due = due_of(variant, request.items)
    request.receipt = Receipt(request.submission.transaction_code, variant.tenant_id, version, at, due)


def due_of(variant: VariantStock, items: Iterable[NewItem]) -> dict[int, dict[int, int]]:
    """By store, the listings of open items, with their lanes as of now."""
    due: dict[int, dict[int, int]] = {}
    for item in items:
        if item.message is not None or item.listing_id is None:
            continue
        listing = variant.listings[item.listing_id]
        quantity = listing.desired()
        if quantity is not None:
            due.setdefault(item.store_id, {})[listing.id] = int(lane_of(quantity, listing.delivered))
    return due


async def _reach_of(connection: Connection, requests: list[_Request], rules: Rules) -> dict[tuple[int, str, int], str]:
    """Why each named channel that has no listing cannot be reached, in words, by (tenant_id, channel, warehouse_id)."""
    wanted = {
        (r.tenant.id, channel, r.warehouse_id): r.update.warehouse for r in requests for channel in r.out_of_reach
    }
    if not wanted:
        return {}
    facts = await db.read_reach(connection, wanted)
    return {key: _why_not(key[1], wanted[key], rules, *facts[key]) for key in wanted}


def _why_not(channel: str, warehouse: str, rules: Rules, has_store: bool, serves_store: bool) -> str:
    name = CATALOGUE[channel].name
    if channel not in rules.connectors:
        return f"No connector: Lumbung cannot deliver to {name} ({channel})"
    if not has_store:
        return f"No store: there is no {name} ({channel}) store"
    if not serves_store:
        return f"Warehouse {warehouse!r} does not serve a {name} ({channel}) store"
    return f"No listing: this SKU has no listing in a {name} ({channel}) store that warehouse {warehouse!r} serves"


def _result(request: _Request) -> Receipt | LumbungError:
    result = request.refusal or request.receipt
    assert result is not None
    return result


async def _write_history(connection: Connection, requests: list[_Request]) -> None:
    taken = [r for r in requests if r.receipt is not None and r.receipt.update_id and r.variant and r.items is not None]
    await db.write_history(
        connection,
        updates=[_update_row(request) for request in taken],
        items=[_item_row(request, item) for request in taken for item in request.items or ()],
        changes=[_change_row(request) for request in taken],
    )
    await stats.add(connection, _accepted(taken))


def _accepted(requests: Iterable[_Request]) -> dict[Pair, Counts]:
    """How many items each store is to deliver, by (tenant_id, store_id)."""
    counts: dict[Pair, Counts] = {}
    for request in requests:
        for item in request.items or ():
            if item.store_id:
                counts.setdefault((request.tenant.id, item.store_id), Counts()).accepted += 1
    return counts


def _update_row(request: _Request) -> tuple[Any, ...]:
    submission, items = request.submission, request.items or []
    still_open = sum(item.message is None for item in items)
    return (
        submission.tenant_id,
        request.at,
        request.version,
        submission.transaction_code,
        submission.partner_id,
        len(items),
        still_open,
    )


def _item_row(request: _Request, item: NewItem) -> tuple[Any, ...]:
    return (
        request.tenant.id,
        item.created_at,
        item.update_id,
        item.id,
        item.listing_id,
        item.store_id,
        item.warehouse_id,
        item.variant_id,
        item.channel,
        item.quantity,
        item.success,
        item.message,
    )


def _change_row(request: _Request) -> tuple[Any, ...]:
    update, variant = request.update, request.variant
    assert variant is not None
    return (
        request.tenant.id,
        request.at,
        request.version,
        0,
        variant.id,
        request.warehouse_id,
        update.available,
        update.buffer,
        update.sync,
        msgspec.json.encode(dict(update.figures)).decode(),
        update.as_of,
        request.applied,
        _replaced(request.replaced),
    )


def _replaced(level: StockLevel | None) -> str | None:
    if level is None:
        return None
    return msgspec.json.encode({"available": level.available, "buffer": level.buffer, "sync": level.sync}).decode()


def _take_in_link(listings: dict[int, ListingStock], row: Any) -> None:
    """A row of read_listings: a listing as one link of its store has it."""
    listing = listings.get(row["id"])
    if listing is None:
        listing = listings[row["id"]] = ListingStock(
            id=row["id"],
            store_id=row["store_id"],
            channel=row["channel"],
            delivered=row["quantity_delivered"],
            version_settled=row["version_settled"],
            calls=row["calls"],
        )
    if row["serving"] and row["warehouse_id"] is not None:
        listing.serving[row["warehouse_id"]] = row["serving_at"]
    if row["quantity"] is not None:
        listing.contributions[row["warehouse_id"]] = _contribution(row, listing)


def _contribution(row: Any, listing: ListingStock) -> Contribution:
    item = None
    if row["item_id"] is not None:
        calls = max(0, listing.calls - row["calls_before"])
        item = StoredItem(row["version"], row["item_created_at"], row["item_id"], calls)
    return Contribution(row["quantity"], row["location"], row["version"], item, row["calls_before"])


def _states(variants: Iterable[VariantStock]) -> Iterable[tuple[Any, ...]]:
    for variant in variants:
        for listing_id, version in variant.changes.due.items():
            listing = variant.listings[listing_id]
            quantity = listing.desired()
            if quantity is not None:
                lane = lane_of(quantity, listing.delivered)
                yield variant.tenant_id, listing_id, listing.store_id, int(lane), version, quantity


def _contributions(variants: Iterable[VariantStock]) -> list[tuple[Any, ...]]:
    return [
        (
            variant.tenant_id,
            *key,
            held.quantity,
            held.location,
            held.version,
            held.item.id if held.item else None,
            held.item.created_at if held.item else None,
            held.calls_before,
        )
        for variant in variants
        for key, held in sorted(variant.changes.contributions.items())
    ]


def _levels(variants: Iterable[VariantStock]) -> list[tuple[Any, ...]]:
    return [
        (v.tenant_id, v.id, warehouse, level.available, level.buffer, level.reserved, level.sync, level.newest_as_of)
        for v in variants
        for warehouse, level in sorted((w, v.levels[w]) for w in v.changes.levels)
    ]


def _figures(variants: Iterable[VariantStock]) -> list[tuple[Any, ...]]:
    rows: dict[tuple[Any, ...], Figure] = {}
    for variant in variants:
        for warehouse, channel in sorted(variant.changes.figures):
            rows[variant.tenant_id, variant.id, warehouse, channel] = variant.figures[warehouse][channel]
    return [(*key, figure.quantity, figure.named) for key, figure in rows.items()]


def _ended(tenant_id: int, ended: EndedItem) -> tuple[Any, ...]:
    item = ended.item
    return tenant_id, item.created_at, item.update_id, item.id, ended.success, ended.message, item.calls
