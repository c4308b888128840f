"""Requests as they go over the wire, signed beforehand: what signs them is no part of what is measured."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence

from lumbung.bench.world import BenchTenant
from lumbung.client.partner import sign

UPDATES = "/v1/partner/inventory/updatestocks"
HISTORY = "/v1/partner/inventory/history"


def update_body(sku: str, quantity: int, channels: Sequence[str]) -> bytes:
    """As the API's documentation shows one: a figure for each channel."""
    figures = [{"code": code, "qty": quantity} for code in channels]
    update = {
        "sku": sku,
        "sync_stock": False,
        "warehouse": "default",
        "available_stock": quantity,
        "buffer_stock": 0,
        "channel_stock": figures,
    }
    return json.dumps(update).encode()


def update(tenant: BenchTenant, sku: str, quantity: int) -> bytes:
    return signed("POST", UPDATES, tenant, update_body(sku, quantity, tenant.channels))


def signed(method: str, target: str, tenant: BenchTenant, body: bytes = b"") -> bytes:
    head = (
        f"{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"partner-id: {tenant.partner_id}\r\nsecret: {sign(tenant.secret, target, body)}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def updates(tenants: Iterable[BenchTenant], seed: int) -> list[bytes]:
    """One for each SKU of each tenant, shuffled. Quantities are from 1 to 1000."""
    dice = random.Random(seed)  # noqa: S311 (a load, no secret)
    made = [update(tenant, sku, dice.randint(1, 1000)) for tenant in tenants for sku in tenant.skus]
    dice.shuffle(made)
    return made
