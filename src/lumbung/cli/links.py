"""`lumbung store link|unlink|forget-location`: which warehouses serve a store, and at which locations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumbung.channels.base import Channel
from lumbung.cli import audit, credentials, find, output, session
from lumbung.cli.find import Place
from lumbung.db import stores
from lumbung.db.query import Connection
from lumbung.db.stores import StoreRow
from lumbung.errors import NotFound, UsageError
from lumbung.inventory import stores as inventory

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="The store's name or id.")]
WarehouseOption = Annotated[list[str], typer.Option("--warehouse", metavar="NAME[=LOCATION]", help="May be repeated.")]


def link(
    context: typer.Context, store: StoreArgument, warehouse: WarehouseOption, tenant: session.TenantOption = None
) -> None:
    """Have warehouses serve a store, each at its location where the channel knows locations."""
    found, places = session.run(context, partial(_change_links, tenant, store, warehouse, True))
    for place in places:
        where = "" if place.location is None else f" at {place.location}"
        output.say(f"Warehouse {place.warehouse!r} serves store {found.name!r}{where}")


def unlink(
    context: typer.Context, store: StoreArgument, warehouse: WarehouseOption, tenant: session.TenantOption = None
) -> None:
    """Have warehouses serve a store no longer; it then shows nothing at their locations, unless none is left."""
    found, places = session.run(context, partial(_change_links, tenant, store, warehouse, False))
    for place in places:
        output.say(f"Warehouse {place.warehouse!r} serves store {found.name!r} no longer")


async def _change_links(
    tenant: str | None, reference: str, warehouses: list[str], linked: bool, hub: Installation
) -> tuple[StoreRow, list[Place]]:
    """The change and its audit row first, then the listings in chunks. Run again, it finishes what a crash left."""
    async with hub.pool.transaction() as connection:
        tenant_id = (await find.tenant(connection, tenant)).id
        store = await find.store(connection, tenant_id, reference)
        places = await find.places(connection, tenant_id, warehouses)
        await stores.lock_links(connection, tenant_id=tenant_id, store_id=store.id)
        if linked:
            served = await stores.links_of(connection, tenant_id=tenant_id, store_id=store.id)
            check_locations(credentials.connector(store.channel), places, served)
        for place in places:
            await (_serve if linked else _serve_no_longer)(connection, store, place)
    await with_progress(
        "Recomputing", hub, store, lambda advance: inventory.settle(hub.pool, hub.settings, store, advance)
    )
    return store, places


async def _serve(connection: Connection, store: StoreRow, place: Place) -> None:
    await put(connection, store.tenant_id, store.id, place)
    detail = {"warehouse": place.warehouse, "location": place.location}
    await audit.write(connection, store.tenant_id, "store.link", f"store:{store.id}", **detail)


async def _serve_no_longer(connection: Connection, store: StoreRow, place: Place) -> None:
    served = await stores.links_of(connection, tenant_id=store.tenant_id, store_id=store.id)
    linked = place.warehouse_id in served  # if not, this finishes what a crash left
    if linked and place.location is not None and served[place.warehouse_id] != place.location:
        raise NotFound(f"Warehouse {place.warehouse!r} does not serve store {store.name!r} at {place.location!r}")
    if await stores.unlink(connection, tenant_id=store.tenant_id, store_id=store.id, warehouse_id=place.warehouse_id):
        subject = f"store:{store.id}"
        await audit.write(connection, store.tenant_id, "store.unlink", subject, warehouse=place.warehouse)
    elif not await stores.has_unsettled_links(connection, tenant_id=store.tenant_id, store_id=store.id):
        raise NotFound(f"Warehouse {place.warehouse!r} does not serve store {store.name!r}")


def forget_location(
    context: typer.Context,
    store: StoreArgument,
    location: Annotated[str, typer.Argument(help="As the marketplace names it.")],
    tenant: session.TenantOption = None,
) -> None:
    """Tell a former location nothing any more, because the marketplace no longer has it."""
    found, listings, more = session.run(context, partial(_forget_location, tenant, store, location))
    output.say(f"Nothing is told to {location!r} of store {found.name!r} any more ({listings} listings were)")
    output.note("If the marketplace still has it, what it shows there stays for sale")
    output.note(f"What the marketplace refused because of it: `lumbung failures retry --store {found.id}{more}`")


async def _forget_location(
    tenant: str | None, reference: str, location: str, hub: Installation
) -> tuple[StoreRow, int, str]:
    async with hub.pool.transaction() as connection:
        tenant_id = (await find.tenant(connection, tenant)).id
        store = await find.store(connection, tenant_id, reference)
        served = await stores.links_of(connection, tenant_id=tenant_id, store_id=store.id)
        if location in served.values():
            raise UsageError(f"A warehouse serves store {store.name!r} at {location!r}: unlink it first")
        listings = await stores.forget_location(connection, tenant_id=tenant_id, store_id=store.id, location=location)
        if listings == 0:
            raise NotFound(f"No listing of store {store.name!r} was shown at {location!r} before")
        detail = {"location": location, "listings": listings}
        await audit.write(connection, tenant_id, "store.forget_location", f"store:{store.id}", **detail)
        more = await find.tenant_words(connection, tenant_id)
    return store, listings, more


async def put(connection: Connection, tenant_id: int, store_id: int, place: Place) -> None:
    await stores.link(
        connection,
        tenant_id=tenant_id,
        store_id=store_id,
        warehouse_id=place.warehouse_id,
        location=place.location,
    )


def check_locations(channel: Channel, places: list[Place], served: Mapping[int, str | None]) -> None:
    """A listing's stock either stands at locations or does not: marketplaces refuse a mixture. `served`: who serves the
    store already."""
    for place in places:
        if place.location is not None and not channel.manifest.location_aware:
            raise UsageError(f"{channel.manifest.name} knows no locations: write --warehouse {place.warehouse} alone")
    after = {**served, **{place.warehouse_id: place.location for place in places}}
    if len({location is None for location in after.values()}) > 1:
        raise UsageError(
            "Either each warehouse of a store has a location or none has: write --warehouse NAME=LOCATION for every "
            "one that serves it, in one command"
        )


async def with_progress(
    label: str, hub: Installation, store: StoreRow, work: Callable[[inventory.Progress], Any]
) -> None:
    """Chunks of a store's listings; begun anew when a lock was not had, which finds what is done already as it is."""

    async def attempt() -> None:
        with output.progress(f"{label} of {store.name}", None) as advance:
            await work(advance)

    await session.retried(attempt)
