"""What a worker tells an operator about the stores that it holds."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog

from lumbung.db import stores
from lumbung.keyring import Keyring
from tests.flow.hub import FAST, QUIESCE_SECONDS, running_hub, running_worker, until

Entry = MutableMapping[str, Any]

LOST = "a lease was lost"
ANEW = "a store is opened anew: an operator has changed it"
TAKEN = "a store is taken over from a worker that was lost"
STOPPED = "the worker stopped"


@pytest.fixture
def logged() -> Iterator[list[Entry]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


def named(logged: list[Entry], *events: str) -> list[tuple[str, str, int | None]]:
    """(event, level, store) of those events."""
    return [
        (entry["event"], entry["log_level"], entry.get("store")) for entry in logged if entry["event"] in set(events)
    ]


async def test_new_credentials_are_told_as_a_store_that_is_opened_anew_not_as_a_lost_lease(
    database_url: str, keyring: Keyring, logged: list[Entry]
) -> None:
    async with running_hub(database_url, keyring) as hub:
        store_id = await hub.store()
        await hub.ended(await hub.update(blib=5))
        async with hub.world.pool.transaction() as connection:
            await stores.revoke_lease(connection, store_id=store_id, quiesce_seconds=QUIESCE_SECONDS)
        await hub.ended(await hub.update(blib=7))

        async def told() -> list[tuple[str, str, int | None]]:
            return named(logged, LOST, ANEW)

        assert await until(told, bool) == [(ANEW, "info", store_id)]
    assert named(logged, LOST, ANEW, TAKEN, STOPPED) == [(ANEW, "info", store_id), (STOPPED, "info", None)]


async def test_a_store_that_a_lost_worker_held_is_told_to_be_taken_over(
    database_url: str, keyring: Keyring, logged: list[Entry]
) -> None:
    async with running_hub(database_url, keyring, worker=False) as hub:
        lost, free = await hub.store(), await hub.store("Other", code="TOQ-2", skus=("sku2",))
        gone = await hub.world.value(
            "INSERT INTO worker (name, started_at, renewed_at, expires_at, lifetime_seconds)"
            " SELECT 'gone', now() - interval '1 h', now() - interval '1 h', now() - interval '1 h', 15 RETURNING id"
        )
        await hub.world.execute("UPDATE store_lease SET worker_id = $1 WHERE store_id = $2", gone, lost)
        codes = [await hub.update(blib=5), await hub.update("sku2", blib=6)]
        async with running_worker(FAST, database_url, keyring):
            await hub.ended(*codes)
    assert free != lost
    assert named(logged, TAKEN, LOST, ANEW) == [(TAKEN, "info", lost)]
    assert next(entry["lost_worker"] for entry in logged if entry["event"] == TAKEN) == gone
