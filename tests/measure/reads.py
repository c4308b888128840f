"""What reading due listings costs, in pages: `python -m tests.measure.reads --listings 20000 --stores 20 --rounds 10`.

    high cursor   a window of one store in which everything is due, nine tenths of the way
    quiet         nothing is due; who looks finds nothing, a listing is read by its key
    held          the same, after each listing became due and was delivered again `rounds` times with a snapshot open

Pages that a statement looks at do not depend on what else the machine does. Times are those of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass
from typing import Any

import asyncpg
from rich.console import Console

from lumbung.db import delivery
from lumbung.db.query import Queries, Query
from tests.measure.hub import open_hub
from tests.measure.snapshot import held_snapshot
from tests.measure.worker import fill

QUERIES = Queries(delivery.__file__)
STORE = 2
LIMIT = 200
BECOME_DUE = "UPDATE listing_state SET state = 'due', lane = 2 WHERE state = 'idle'"
BE_DELIVERED = "UPDATE listing_state SET state = 'idle', lane = 0 WHERE state = 'due'"


@dataclass(frozen=True, slots=True)
class Cost:
    """`pages`: that a statement has looked at; `ms`: that it took; `rows`: that it gave."""

    pages: int
    ms: float
    rows: int

    def __str__(self) -> str:
        return f"{self.pages:9,} pages {self.ms:10.2f} ms {self.rows:6,} rows"


async def cost_of(connection: asyncpg.Connection, query: Query, **values: Any) -> Cost:
    """Of the last of three, by when everything is in memory."""
    sent = query.positional(values)
    for _ in range(3):
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query.sql}", *sent)
    [found] = json.loads(text)
    plan = found["Plan"]
    pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return Cost(pages, found["Execution Time"], round(plan["Actual Rows"] * plan["Actual Loops"]))


async def window(connection: asyncpg.Connection, cursor: int = 0) -> Cost:
    lanes = list(range(1, 7))
    of_store = await _of_store(connection)
    return await cost_of(
        connection, QUERIES["due_window"], **of_store, lanes=lanes, cursors=[cursor] * len(lanes), busy=[], limit=LIMIT
    )


async def by_key(connection: asyncpg.Connection, listing_id: int) -> Cost:
    return await cost_of(connection, QUERIES["due_now"], **await _of_store(connection), listing_ids=[listing_id])


async def look(connection: asyncpg.Connection) -> Cost:
    ahead = {"wait_seconds_max": 3600.0, "renew_ahead_seconds": 3600.0}
    return await cost_of(connection, QUERIES["stores_with_work"], working=[], **ahead)


async def _of_store(connection: asyncpg.Connection) -> dict[str, Any]:
    epoch = await connection.fetchval("SELECT epoch FROM store_lease WHERE store_id = $1", STORE)
    return {"tenant_id": 1, "store_id": STORE, "epoch": epoch, "with_locations": False}


async def measure(arguments: argparse.Namespace) -> None:
    console = Console(soft_wrap=True, highlight=False)

    def tell(when: str, what: str, cost: Cost) -> None:
        console.print(f"{when:12}{what:24}{cost}")

    async with open_hub() as hub:
        await fill(hub.pool, hub.keyring, stores=arguments.stores, listings=arguments.listings, due=False, port=1)
        connection = await asyncpg.connect(hub.url)
        listing_id = await connection.fetchval("SELECT min(listing_id) FROM listing_state WHERE store_id = $1", STORE)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("UPDATE listing_state SET store_id = $1, state = 'due', lane = 2", STORE)
        await connection.execute("ANALYZE listing_state")
        tell("high cursor", "due_window", await window(connection, cursor=arguments.listings * 9 // 10))
        await transaction.rollback()
        await connection.execute("VACUUM (ANALYZE) listing_state")
        for when, rounds in (("quiet", 0), ("held", arguments.rounds)):
            async with held_snapshot(hub.url):
                for _ in range(rounds):
                    await connection.execute(BECOME_DUE)
                    await connection.execute(BE_DELIVERED)
                tell(when, "due_window", await window(connection))
                tell(when, "due_now, one listing", await by_key(connection, listing_id))
                tell(when, "stores_with_work", await look(connection))
        await connection.close()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--listings", type=int, default=20_000)
    made.add_argument("--stores", type=int, default=20)
    made.add_argument("--rounds", type=int, default=10)
    return made


if __name__ == "__main__":
    asyncio.run(measure(parser().parse_args()))
