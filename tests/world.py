"""Builds tenants, stores and listings in a real database, and reads back what tests assert on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from lumbung.db import applications, catalogue, stores, tenants
from lumbung.db import history as history_db
from lumbung.db.pool import Pool
from lumbung.db.stores import StoreRow
from lumbung.errors import LumbungError
from lumbung.inventory.listings import Mapped, import_listings
from lumbung.inventory.stock import Receipt, Rules, accept
from lumbung.keyring import Keyring
from lumbung.model import (
    HistoryRecord,
    StockLimit,
    StockUpdate,
    StoreMode,
    Submission,
    UnknownSku,
    purpose_of_application,
    purpose_of_partner,
    purpose_of_store,
)

RULES = Rules(connectors=frozenset({"blib", "shpe"}), idempotency_key_seconds=86400)
REMAP_DOUBT_SECONDS = 120.0
SUBMITTED_SECONDS = 3600.0
PARTNER_ID = "B98KL87"
PARTNER_SECRET = "1IieSn9qXCYu3FeEG1eH05QxTMldKEiNIkLSN/5xtgc="  # published, see contract.md


def stock_update(
    sku: str = "sku1",
    available: int = 100,
    *,
    buffer: int = 0,
    sync: bool = False,
    warehouse: str = "default",
    as_of: datetime | None = None,
    **figures: int,
) -> StockUpdate:
    return StockUpdate(sku, warehouse, available, buffer, sync, figures, as_of)


@dataclass
class World:
    """One tenant's world. Ids are real; names are what tests say."""

    pool: Pool
    keyring: Keyring | None = None
    tenant_id: int = 0
    stores: dict[str, StoreRow] = field(default_factory=dict)

    async def tenant(
        self,
        name: str = "Toko",
        *,
        unknown_sku: UnknownSku = UnknownSku.REJECT,
        channel_stock_limit: StockLimit = StockLimit.NONE,
    ) -> int:
        async with self.pool.transaction() as connection:
            tenant_id = await tenants.add_tenant(
                connection, name=name, unknown_sku=unknown_sku, channel_stock_limit=channel_stock_limit
            )
        assert tenant_id is not None
        self.tenant_id = tenant_id
        return tenant_id

    async def partner(
        self, partner_id: str = PARTNER_ID, secret: str = PARTNER_SECRET, *, strict: bool = False
    ) -> None:
        assert self.keyring is not None
        blob = self.keyring.encrypt(secret.encode(), purpose_of_partner(partner_id))
        async with self.pool.transaction() as connection:
            assert await tenants.add_partner(
                connection,
                partner_id=partner_id,
                tenant_id=self.tenant_id,
                name=partner_id,
                secret=blob,
                strict=strict,
            )

    async def warehouse(self, name: str) -> int:
        async with self.pool.transaction() as connection:
            warehouse_id = await tenants.add_warehouse(connection, tenant_id=self.tenant_id, name=name)
        assert warehouse_id is not None
        return warehouse_id

    async def store(
        self,
        name: str = "Toko Padi",
        channel: str = "blib",
        *,
        mode: StoreMode = StoreMode.LIVE,
        warehouses: Mapping[int, str | None] | None = None,
        credentials: Mapping[str, object] | None = None,
        application_id: int | None = None,
    ) -> int:
        async with self.pool.transaction() as connection:
            store_id = await stores.add_store(
                connection,
                tenant_id=self.tenant_id,
                channel=channel,
                name=name,
                mode=mode,
                channel_app_id=application_id,
            )
            assert store_id is not None
            if credentials is not None:
                assert self.keyring is not None
                blob = self.keyring.encrypt(json.dumps(dict(credentials)).encode(), purpose_of_store(store_id))
                await stores.set_credentials(connection, tenant_id=self.tenant_id, store_id=store_id, credentials=blob)
            for warehouse_id, location in ({0: None} if warehouses is None else warehouses).items():
                await stores.link(
                    connection,
                    tenant_id=self.tenant_id,
                    store_id=store_id,
                    warehouse_id=warehouse_id,
                    location=location,
                )
            row = await stores.find_store(connection, self.tenant_id, str(store_id))
        assert row is not None
        self.stores[name] = row
        return store_id

    async def application(
        self, name: str = "app", channel: str = "shpe", credentials: Mapping[str, object] | None = None
    ) -> int:
        """An application of the installation, without a limit."""
        assert self.keyring is not None
        async with self.pool.transaction() as connection:
            application_id = await applications.add(connection, tenant_id=None, channel=channel, name=name)
            assert application_id is not None
            plain = json.dumps(dict(credentials or {})).encode()
            sealed = self.keyring.encrypt(plain, purpose_of_application(application_id))
            await applications.set_credentials(connection, application_id=application_id, credentials=sealed)
        return application_id

    async def variants(self, *skus: str) -> None:
        async with self.pool.transaction() as connection:
            await catalogue.put_variants(connection, self.tenant_id, [(sku, sku) for sku in sorted(set(skus))])

    async def listings(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """(sku, store name, blibli sku)"""
        mapped = [
            Mapped(sku, self.stores[store].id, self.stores[store].channel, json.dumps({"blibli_sku": remote}))
            for sku, store, remote in rows
        ]
        async with self.pool.transaction() as connection:
            await import_listings(
                connection,
                self.tenant_id,
                mapped,
                remap_doubt_seconds=REMAP_DOUBT_SECONDS,
                submitted_seconds=SUBMITTED_SECONDS,
            )

    async def small(self) -> None:
        """A tenant with one live Blibli store and sku1 listed in it."""
        await self.tenant()
        await self.store()
        await self.variants("sku1")
        await self.listings([("sku1", "Toko Padi", "TOQ-1-1-1")])

    async def accept(self, *updates: StockUpdate, rules: Rules = RULES) -> list[Receipt | LumbungError]:
        """Accept updates as one group of this tenant."""
        submissions = [Submission(self.tenant_id, PARTNER_ID, uuid4(), update) for update in updates]
        return await self.submit(*submissions, rules=rules)

    async def submit(self, *submissions: Submission, rules: Rules = RULES) -> list[Receipt | LumbungError]:
        async with self.pool.transaction() as connection:
            return await accept(connection, submissions, rules)

    async def accepted(self, update: StockUpdate, rules: Rules = RULES) -> UUID:
        [receipt] = await self.accept(update, rules=rules)
        assert isinstance(receipt, Receipt), receipt
        return receipt.transaction_code

    async def history(self, limit: int = 100) -> list[HistoryRecord]:
        """Newest first."""
        async with self.pool.connection() as connection:
            records, _ = await history_db.page(
                connection, tenant_id=self.tenant_id, updated_at=None, limit=limit, offset=0, items_max=1000
            )
        return records

    async def states(self) -> dict[str, dict[str, Any]]:
        """The state of each live listing, by blibli sku."""
        rows = await self.rows(
            "SELECT l.remote_variant, t.* FROM listing l LEFT JOIN listing_state t"
            " ON t.tenant_id = l.tenant_id AND t.listing_id = l.id"
            " WHERE l.tenant_id = $1 AND l.retired_at IS NULL ORDER BY l.id",
            self.tenant_id,
        )
        return {json.loads(row["remote_variant"])["blibli_sku"]: row for row in rows}

    async def due(self) -> dict[str, int | None]:
        """What each live listing is to show, by blibli sku; None: nothing is sent to it."""
        return {
            remote: row["quantity_due"] if row["state"] == "due" else None
            for remote, row in (await self.states()).items()
        }

    async def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        async with self.pool.connection() as connection:
            return [dict(row) for row in await connection.fetch(query, *values)]

    async def value(self, query: str, *values: object) -> Any:
        async with self.pool.connection() as connection:
            return await connection.fetchval(query, *values)

    async def execute(self, query: str, *values: object) -> None:
        async with self.pool.connection() as connection:
            await connection.execute(query, *values)
