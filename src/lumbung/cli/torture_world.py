"""The world under fire, made: planned for the fault test, in the hub's database and on the sandbox."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from lumbung.cli.compose import Installation
from lumbung.cli.sandbox_stores import BlibliStore, BukalapakStore, SandboxStore, ShopeeStore
from lumbung.cli.seeding import add_application, add_partner, add_store, put_tokens
from lumbung.db import catalogue, stores, tenants, wake
from lumbung.db.query import Connection
from lumbung.inventory.listings import Mapped, import_listings
from lumbung.model import StockLimit, UnknownSku
from lumbung.torture.market import Market
from lumbung.torture.world import WAREHOUSES, ApplicationPlan, Place, StorePlan, TenantPlan, World

DEADLINE_SECONDS = 15  # of items: a person who waits for none of it to end must not wait long
TOKEN_SECONDS = 12  # of an access token, when tokens are to grow old under fire
TOKEN_SECONDS_IN_PEACE = 4 * 3600
QUIESCE_SECONDS = 2.5  # of a store: how long a lost call may still take effect
SEALED = "sealed"  # credentials that nobody can decrypt
SEALED_CODE = "SEA"  # such a store's code begins with it
FAILING = "failing"
BANNED = "banned"
UNREADABLE = "unreadable"
# A Shopee item with a variation that fails could not be read at all, its healthy variations neither.
POISON = {"blib": FAILING, "bklp": FAILING, "shpe": BANNED}
NONSENSE = '{"made_by": "nobody"}'
APPLICATION = 1_000_000  # Shopee's number of the app key that the stores of all merchants share


@dataclass(frozen=True, slots=True)
class Size:
    """`calls_per_second`: of each store."""

    tenants: int
    skus: int
    calls_per_second: float


@dataclass(slots=True)
class Made:
    """`on_sandbox`: the stores as their marketplaces know them, by the plan's place of them (channel, code)."""

    world: World
    on_sandbox: dict[tuple[str, str], SandboxStore] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shared:
    """The app key that the Shopee stores of all merchants share. `id`: in the hub."""

    id: int
    plan: ApplicationPlan
    partner_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Recipe:
    """`market_url`: the marketplaces as workers reach them; `names`: of what goes wrong; `limits`: of every store, as
    its credentials file has them."""

    hub: Installation
    market_url: str
    size: Size
    names: Collection[str]
    limits: dict[str, str]
    shared: Shared


async def make(hub: Installation, market_url: str, size: Size, names: Collection[str], limits: dict[str, str]) -> Made:
    """In the hub; the arguments are those of a Recipe."""
    recipe = Recipe(hub, market_url, size, names, limits, await _application(hub, market_url, size))
    made = Made(World(()))
    plans = [
        await _tenant(recipe, number, made, poison="poison" in names and number == 1)
        for number in range(1, size.tenants + 1)
    ]
    made.world = World(tuple(plans), made.world.poisoned)
    return made


async def _application(hub: Installation, market_url: str, size: Size) -> Shared:
    """All its stores together may send what one of them may."""
    plan = ApplicationPlan("shpe", f"{APPLICATION}", size.calls_per_second, max(1, int(size.calls_per_second / 2)))
    first = ShopeeStore("", "", {}, partner_id=APPLICATION)
    application = first.application(market_url)
    async with hub.pool.transaction() as connection:
        application_id = await add_application(
            connection, hub.keyring, None, application, calls_per_second=plan.calls_per_second, burst=plan.burst
        )
    return Shared(application_id, plan, first.partner_key)


def put(made: Made, market: Market) -> None:
    """On the sandbox. Blocks."""
    for tenant in made.world.tenants:
        for plan in tenant.stores:
            store = made.on_sandbox[plan.channel, plan.code]
            market.put_store(plan.channel, plan.code, store.sandbox_store(tenant.skus))
            market.limit(plan.channel, plan.code, plan.calls_per_second)
    for one in made.world.applications:
        market.limit_application(one.channel, one.name, one.calls_per_second, one.calls_at_once_max)
    for (channel, code, sku), why in made.world.poisoned.items():
        if why in {FAILING, BANNED}:
            market.spoil(channel, code, made.on_sandbox[channel, code].remote_of(sku), why)


async def agree_again(hub: Installation, made: Made, market: Market, channel: str, code: str) -> None:
    """The seller agrees, and the operator tells the hub, as `lumbung store authorize` and `store resume` do."""
    plan = next(store for store in made.world.stores if (store.channel, store.code) == (channel, code))
    tenant_id = made.world.tenant_of(plan).id
    await asyncio.to_thread(market.agree, channel, code)
    async with hub.pool.transaction() as connection:
        await put_tokens(connection, hub.keyring, tenant_id, plan.id, made.on_sandbox[channel, code].tokens())
        await stores.revoke_lease(connection, store_id=plan.id, quiesce_seconds=QUIESCE_SECONDS)
        await stores.resume(connection, tenant_id=tenant_id, store_id=plan.id)
    await wake.try_notify(hub.pool, [plan.id])


async def _tenant(recipe: Recipe, number: int, made: Made, *, poison: bool) -> TenantPlan:
    hub, name, partner_id = recipe.hub, f"Toko {number}", f"TORTURE{number}"
    skus = tuple(f"sku{n}" for n in range(1, recipe.size.skus + 1))
    on_sandbox = _stores(recipe, number, poison=poison)
    unreadable = ("blib", on_sandbox[0].code, skus[-1]) if poison else None
    async with hub.pool.transaction() as connection:
        tenant_id = await tenants.add_tenant(
            connection, name=name, unknown_sku=UnknownSku.REJECT, channel_stock_limit=StockLimit.NONE
        )
        assert tenant_id is not None
        await tenants.set_item_deadline(connection, tenant_id, seconds=DEADLINE_SECONDS)
        secret = await add_partner(connection, hub.keyring, tenant_id, partner_id)
        second = await tenants.add_warehouse(connection, tenant_id=tenant_id, name=WAREHOUSES[1])
        assert second is not None
        warehouses = dict(zip(WAREHOUSES, (0, second), strict=True))
        await catalogue.put_variants(connection, tenant_id, [(sku, sku) for sku in skus])
        plans, mapped = [], []
        for store in on_sandbox:
            plan = await _store(connection, recipe, tenant_id, name, store, warehouses)
            made.on_sandbox[store.channel, store.code] = store
            plans.append(plan)
            mapped += [_mapped(store, plan.id, sku, unreadable) for sku in skus]
        await import_listings(
            connection,
            tenant_id,
            mapped,
            remap_doubt_seconds=hub.settings.remap_doubt_seconds,
            submitted_seconds=hub.settings.submitted_seconds_max,
        )
    if unreadable is not None:
        made.world.poisoned[unreadable] = UNREADABLE
        for channel, why in POISON.items():
            code = next(store.code for store in on_sandbox if store.channel == channel)
            made.world.poisoned[channel, code, skus[-2]] = why
    return TenantPlan(tenant_id, name, partner_id, secret, skus, tuple(plans))


async def _store(
    connection: Connection,
    recipe: Recipe,
    tenant_id: int,
    tenant: str,
    store: SandboxStore,
    warehouses: Mapping[str, int],
) -> StorePlan:
    shared = recipe.shared if store.channel == recipe.shared.plan.channel else None
    store_id = await add_store(
        connection,
        recipe.hub.keyring,
        tenant_id,
        store,
        warehouses,
        recipe.market_url,
        application_id=None if shared is None else shared.id,
    )
    poison = SEALED if store.code.startswith(SEALED_CODE) else ""
    if poison:
        await stores.set_credentials(
            connection, tenant_id=tenant_id, store_id=store_id, credentials=secrets.token_bytes(64)
        )
    return StorePlan(
        store_id,
        tenant,
        store.channel,
        store.code,
        dict(store.warehouses),
        recipe.size.calls_per_second,
        poison,
        None if shared is None else shared.plan,
    )


def _mapped(store: SandboxStore, store_id: int, sku: str, unreadable: Place | None) -> Mapped:
    nonsense = (store.channel, store.code, sku) == unreadable
    return Mapped(sku, store_id, store.channel, NONSENSE if nonsense else store.remote_variant(sku))


def _stores(recipe: Recipe, number: int, *, poison: bool) -> list[SandboxStore]:
    """One warehouse and two, one number for both and one for each, one call a listing and many a call."""
    first, second = WAREHOUSES
    limits, lasts = recipe.limits, TOKEN_SECONDS if "expiring-tokens" in recipe.names else TOKEN_SECONDS_IN_PEACE
    found: list[SandboxStore] = [
        BlibliStore(f"Blibli {number}", f"TOA-{number}", {first: None}, limits=limits),
        BlibliStore(f"Blibli both {number}", f"TOB-{number}", {first: None, second: None}, limits=limits),
        BukalapakStore(
            f"Bukalapak {number}", f"8{number:04}", {first: None},
            limits=limits, access_seconds=lasts, client_id=f"torture-{number}",
        ),
        ShopeeStore(
            f"Shopee {number}", f"9{number:04}", {first: "IDJ", second: "IDS"},
            limits=limits, access_seconds=lasts, partner_id=APPLICATION, partner_key=recipe.shared.partner_key,
        ),
    ]  # fmt: skip
    if poison:
        found.append(BlibliStore(f"Sealed {number}", f"{SEALED_CODE}-{number}", {first: None}, limits=limits))
    return found
