"""What operators do with stores. Each change commits chunk by chunk, because a store may have a million listings.

A change of who serves a store is written first, unsettled; `settle` then recomputes the listings in chunks. Run again,
it finishes what a crash left (`lumbung doctor` tells).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from lumbung.db import catalogue, stores, wake
from lumbung.db.catalogue import ListingRow
from lumbung.db.pool import Pool
from lumbung.db.query import Connection
from lumbung.db.stores import StoreRow
from lumbung.inventory.listings import recompute, remove_listings
from lumbung.settings import Settings

Progress = Callable[[int], None]


async def settle(pool: Pool, settings: Settings, store: StoreRow, progress: Progress) -> None:
    """Recompute every listing of a store after a change of its warehouses. Who makes a newer change settles that."""
    async with pool.connection() as connection:
        newest = await stores.newest_change(connection, tenant_id=store.tenant_id, store_id=store.id)

    async def work(connection: Connection, chunk: list[ListingRow]) -> None:
        await recompute(connection, store.tenant_id, chunk)

    await _in_chunks(pool, settings, store, work, progress)
    async with pool.transaction() as connection:
        await stores.settle_links(connection, tenant_id=store.tenant_id, store_id=store.id, newest=newest)
    await wake.try_notify(pool, [store.id])


async def remove(pool: Pool, settings: Settings, store: StoreRow, progress: Progress) -> None:
    """Retire a store and its listings; their open items end at once."""
    async with pool.transaction() as connection:
        await stores.pause(
            connection, tenant_id=store.tenant_id, store_id=store.id, reason="The store is being removed"
        )

    async def work(connection: Connection, chunk: list[ListingRow]) -> None:
        await remove_listings(
            connection,
            store.tenant_id,
            chunk,
            f"Store {store.name!r} was removed",
            remap_doubt_seconds=settings.remap_doubt_seconds,
            submitted_seconds=settings.submitted_seconds_max,
        )

    await _in_chunks(pool, settings, store, work, progress)
    async with pool.transaction() as connection:
        await stores.retire(connection, tenant_id=store.tenant_id, store_id=store.id)


async def _in_chunks(
    pool: Pool,
    settings: Settings,
    store: StoreRow,
    work: Callable[[Connection, list[ListingRow]], Awaitable[None]],
    progress: Progress,
) -> None:
    async for chunk in _chunks(pool, settings, store):
        async with pool.transaction(lock_timeout_ms=settings.update_lock_timeout_ms) as connection:
            await work(connection, chunk)
        progress(len(chunk))


async def _chunks(pool: Pool, settings: Settings, store: StoreRow) -> AsyncIterator[list[ListingRow]]:
    after = ""
    while True:
        async with pool.connection() as connection:
            chunk = await catalogue.listings_of_store(
                connection,
                tenant_id=store.tenant_id,
                store_id=store.id,
                after=after,
                limit=settings.chunk_rows_max,
            )
        if not chunk:
            return
        yield chunk
        after = chunk[-1].remote_variant
