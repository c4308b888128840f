"""What a store with a backlog costs the others: `python -m tests.measure.fairness --listings 1000000`.

One worker. A store has so many listings due, and its marketplace takes 5 s for each answer, so that it always has as
many calls under way as a store may. Five merchants, the one with that store among them, have two other stores each on
the same marketplace and send a steady flow of updates. In each round the big store is paused and live for so many
seconds each. The latency of an update is the time from when it was to be sent until its marketplace shows it or a
newer one; each store counts.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from lumbung.channels.blibli.manifest import MANIFEST
from lumbung.db import stores
from lumbung.db.query import Connection
from lumbung.sandbox.entries import Write
from tests.measure.control import Control
from tests.measure.hub import Hub, open_hub, until
from tests.measure.merchant import Merchant, Sender, Sent, open_merchant, remote_of

BIG = "BIG"
BIG_KNOWN_MAX = 20_000  # of its listings the marketplace knows only these: no run gets further
ANSWER_SECONDS = 5.0
MERCHANTS = 5
STORES = 2
SKUS = 40
RATIO_MAX, RATIO_AIM = 1.25, 1.1
MORE_MS_MAX = 20.0
DELIVERED_SECONDS = 60.0
WARM_SECONDS = 3.0

VARIANTS = "INSERT INTO variant (tenant_id, sku) SELECT $1, 'BIG-' || n FROM generate_series(1, $2::int) n"
LISTINGS = """
    INSERT INTO listing (tenant_id, variant_id, store_id, remote_variant)
    SELECT tenant_id, id, $2, '{"blibli_sku": "' || sku || '"}' FROM variant
    WHERE tenant_id = $1 AND sku LIKE 'BIG-%' ORDER BY id
"""
STATES = """
    INSERT INTO listing_state (tenant_id, listing_id, store_id, state, lane, version_due, quantity_due, due_since)
    SELECT tenant_id, id, store_id, 'due', 1 + id % 3, nextval('version_seq'), 9, now() FROM listing
    WHERE tenant_id = $1 AND store_id = $2
"""


@dataclass(frozen=True, slots=True)
class Phase:
    """`latencies`: ms, sorted. `big_calls`: writes of the big store meanwhile."""

    latencies: list[float]
    big_calls: int

    def percentile(self, percent: int) -> float:
        return self.latencies[min(len(self.latencies) - 1, len(self.latencies) * percent // 100)]


class BigStore:
    """The store with the backlog."""

    def __init__(self, hub: Hub, sandbox: Control, tenant_id: int, store_id: int):
        self._hub = hub
        self._sandbox = sandbox
        self._tenant_id = tenant_id
        self._store_id = store_id

    async def pause(self) -> None:
        """Returns when its last call has ended."""
        async with self._hub.pool.transaction() as connection:
            await stores.pause(connection, tenant_id=self._tenant_id, store_id=self._store_id, reason="measured")
        await self._until_in_flight(0)

    async def resume(self) -> None:
        """Returns when as many calls are under way as a store may have."""
        async with self._hub.pool.transaction() as connection:
            await stores.resume(connection, tenant_id=self._tenant_id, store_id=self._store_id)
        await self._until_in_flight(MANIFEST.in_flight_max)

    async def check(self) -> None:
        """Raises AssertionError when its marketplace has refused anything: that would be another measurement."""
        async with self._hub.pool.connection() as connection:
            refused = await connection.fetchval(
                "SELECT count(*) FROM listing_state WHERE store_id = $1 AND last_outcome <> 'Accepted'", self._store_id
            )
        assert refused == 0, f"{refused} calls of the big store were not accepted"

    async def _until_in_flight(self, calls: int) -> None:
        async def reached() -> bool:
            status = await asyncio.to_thread(self._sandbox.status)
            return bool(status["in_flight"] == calls)

        await until(reached, DELIVERED_SECONDS, f"{calls} calls of the big store under way")


async def open_big_store(hub: Hub, sandbox: Control, merchant: Merchant, listings: int) -> BigStore:
    """Live, with so many listings due; each call of it takes ANSWER_SECONDS."""
    known = [f"{BIG}-{n}" for n in range(1, min(listings, BIG_KNOWN_MAX) + 1)]
    await asyncio.to_thread(sandbox.put_store, BIG, known)
    store_id = await merchant.world.store(BIG, credentials=sandbox.credentials(BIG))
    tenant_id = merchant.world.tenant_id
    async with hub.pool.connection() as connection:
        await connection.execute(VARIANTS, tenant_id, listings, timeout=600)
        await connection.execute(LISTINGS, tenant_id, store_id, timeout=600)
        await connection.execute(STATES, tenant_id, store_id, timeout=600)
        await connection.execute("VACUUM ANALYZE", timeout=600)
        await connection.execute("CHECKPOINT", timeout=600)  # what filling has left to write is not the rounds' affair
    await asyncio.to_thread(sandbox.put_faults, latency_ms=ANSWER_SECONDS * 1000, path_contains=f"/{BIG}-")
    return BigStore(hub, sandbox, tenant_id, store_id)


class Flow:
    """A steady flow of updates from all merchants."""

    def __init__(self, api_url: str, merchants: Iterable[Merchant], sandbox: Control, updates_per_second: float):
        self._senders = [Sender(api_url, merchant, merchant.skus) for merchant in merchants]
        self._sandbox = sandbox
        self._per_second = updates_per_second / len(self._senders)

    async def run(self, seconds: float) -> Phase:
        """Raises AssertionError when an update is refused, TimeoutError when one is not delivered."""
        refused = sum(sender.refused for sender in self._senders)
        sent = await asyncio.gather(
            *(asyncio.to_thread(sender.send_steadily, self._per_second, seconds) for sender in self._senders)
        )
        assert sum(sender.refused for sender in self._senders) == refused, "updates were refused"
        updates = [one for of_sender in sent for one in of_sender]
        writes: list[Write] = []

        async def delivered() -> list[float]:
            writes.extend(self._sandbox.new_writes())
            return latencies(updates, writes)

        found = await until(delivered, DELIVERED_SECONDS, f"{len(updates)} updates to be delivered")
        return Phase(sorted(found), sum(write.store == BIG for write in writes))


def latencies(updates: Iterable[Sent], writes: Iterable[Write]) -> list[float]:
    """Ms from each update to the first write of it or a newer one, one for each store; [] while one is missing."""
    shown: dict[tuple[str, str], list[Write]] = defaultdict(list)
    for write in writes:
        shown[write.store, write.remote_variant].append(write)
    found: list[float] = []
    for update in updates:
        for store in update.merchant.stores:
            of_listing = shown[store, remote_of(store, update.sku)]
            arrived = next((write for write in of_listing if write.quantity >= update.quantity), None)
            if arrived is None:
                return []
            found.append((arrived.at - update.at) * 1000)
    return found


async def measure(arguments: argparse.Namespace) -> None:
    console = Console(soft_wrap=True)
    async with open_hub() as hub:
        sandbox = await hub.start_sandbox()
        merchants = [await open_merchant(hub, sandbox, n + 1, stores=STORES, skus=SKUS) for n in range(MERCHANTS)]
        big = await open_big_store(hub, sandbox, merchants[0], arguments.listings)
        console.print(f"{arguments.listings:,} listings are due in one store; {MERCHANTS * STORES} others")
        api_url = await hub.start_api()
        await hub.start_worker()
        flow = Flow(api_url, merchants, sandbox, arguments.updates_per_second)
        await flow.run(WARM_SECONDS)
        rounds: list[tuple[Phase, Phase]] = []
        for number in range(arguments.rounds):
            # Each half comes first as often as the other, so that what grows with time does not count for one of them.
            halves = {live: await half(big, flow, arguments.seconds, live=live) for live in order_of(number)}
            rounds.append((halves[False], halves[True]))
        await big.check()
        async with hub.pool.connection() as connection:
            left = await _still_due(connection)
    console.print(table_of(rounds))
    console.print(f"{left:,} listings of the big store are still due")
    console.print(verdict(rounds))


def order_of(number: int) -> tuple[bool, bool]:
    """Whether the big store is live in the first and in the second half of a round."""
    return (False, True) if number % 2 == 0 else (True, False)


async def half(big: BigStore, flow: Flow, seconds: float, *, live: bool) -> Phase:
    await (big.resume() if live else big.pause())
    return await flow.run(seconds)


async def _still_due(connection: Connection) -> int:
    found: int = await connection.fetchval("SELECT count(*) FROM listing_state WHERE lane > 0", timeout=600)
    return found


def table_of(rounds: list[tuple[Phase, Phase]]) -> Table:
    table = Table(title="Latency of the other stores' updates, ms: the big store paused | live")
    for column in ("round", "n", "p50", "p99", "n", "its calls", "p50", "p99", "p99 ratio", "p99 more"):
        table.add_column(column, justify="right")
    for number, (paused, live) in enumerate(rounds, 1):
        before, beside = paused.percentile(99), live.percentile(99)
        table.add_row(
            *(str(number), f"{len(paused.latencies)}", f"{paused.percentile(50):.1f}", f"{before:.1f}"),
            *(f"{len(live.latencies)}", str(live.big_calls), f"{live.percentile(50):.1f}", f"{beside:.1f}"),
            *(f"{beside / before:.2f}", f"{beside - before:+.1f}"),
        )
    return table


def verdict(rounds: list[tuple[Phase, Phase]]) -> str:
    ratio = median(live.percentile(99) / paused.percentile(99) for paused, live in rounds)
    more_ms = median(live.percentile(99) - paused.percentile(99) for paused, live in rounds)
    passed = ratio <= RATIO_MAX or more_ms <= MORE_MS_MAX
    return (
        f"p99 beside the big store, median of {len(rounds)} rounds: {ratio:.2f} times, {more_ms:+.1f} ms;"
        f" {'passed' if passed else 'FAILED'} ({RATIO_MAX} times or +{MORE_MS_MAX:g} ms),"
        f" aim of {RATIO_AIM} times {'reached' if ratio <= RATIO_AIM else 'missed'}"
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--listings", type=int, default=1_000_000)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--seconds", type=float, default=20.0, help="of each half of a round")
    made.add_argument("--updates-per-second", type=float, default=50.0, help="of all merchants together")
    return made


if __name__ == "__main__":
    asyncio.run(measure(parser().parse_args()))
