"""What a worker costs: `python -m tests.measure.worker idle --stores 10000` and `... due --listings 1000000`.

Starts an embedded PostgreSQL in a temporary directory and a worker in a process of its own, as `lumbung serve` does.

    idle    every store has a live listing that was delivered; nothing happens: CPU of worker and PostgreSQL
    due     one store has so many listings due: memory of the worker while its marketplace cannot be reached, then
            while it takes everything as fast as the worker sends it
"""

from __future__ import annotations

import argparse
import asyncio
import json
from contextlib import suppress
from time import perf_counter

import asyncpg
import psutil
from rich.console import Console

from lumbung.cli.roles import free_port
from lumbung.db.pool import Pool
from lumbung.keyring import Keyring
from lumbung.model import purpose_of_store
from tests.measure.control import Control, credentials
from tests.measure.hub import HOST, Hub, open_hub, until

CALLS_PER_SECOND = 1000.0
PROBE_SECONDS = 5.0  # so that an answering marketplace is found out soon
WRITE_SECONDS = 60.0
SAMPLE_SECONDS = 0.25
PARTS = 4
MEMORY_MAX, MEMORY_AIM = 200, 120

STORES = """
    INSERT INTO store (tenant_id, id, channel, name, mode, credentials)
    SELECT 1, n, 'blib', 'Store ' || n, 'live', '' FROM generate_series(1, $1::int) n
"""
LEASES = "INSERT INTO store_lease (store_id, tenant_id) SELECT id, 1 FROM store"
LINKS = "INSERT INTO store_warehouse (tenant_id, store_id, warehouse_id) SELECT 1, id, 0 FROM store"
VARIANTS = "INSERT INTO variant (tenant_id, id, sku) SELECT 1, n, 'sku' || n FROM generate_series(1, $1::int) n"
LISTINGS = """
    INSERT INTO listing (tenant_id, id, variant_id, store_id, remote_variant)
    SELECT 1, n, n, 1 + n % $2::int, '{"blibli_sku": "S-' || n || '"}' FROM generate_series(1, $1::int) n
"""
STATES = """
    INSERT INTO listing_state (tenant_id, listing_id, store_id, state, lane, version_due, version_delivered,
                               version_settled, quantity_due, due_since)
    SELECT 1, n, 1 + n % $2::int, CASE WHEN $3 THEN 'due' ELSE 'idle' END, CASE WHEN $3 THEN 1 + n % 3 ELSE 0 END, n,
           CASE WHEN $3 THEN 0 ELSE n END, CASE WHEN $3 THEN 0 ELSE n END, 9, now()
    FROM generate_series(1, $1::int) n
"""
LEASED = "SELECT count(*) FROM store_lease WHERE worker_id IS NOT NULL"
CALLS = "SELECT coalesce(sum(calls), 0) FROM listing_state WHERE calls > 0"


async def fill(pool: Pool, keyring: Keyring, *, stores: int, listings: int, due: bool, port: int) -> None:
    async with pool.connection() as connection:
        await connection.execute("INSERT INTO tenant (id, name) VALUES (1, 'Toko')")
        await connection.execute("INSERT INTO warehouse (tenant_id, id, name) VALUES (1, 0, 'default')")
        await connection.execute(STORES, stores, timeout=600)
        await connection.execute(LEASES)
        await connection.execute(LINKS)
        await connection.execute(VARIANTS, listings, timeout=600)
        await connection.execute(LISTINGS, listings, stores, timeout=600)
        await connection.execute(STATES, listings, stores, due, timeout=600)
        rows = [(store_id, sealed(keyring, store_id, port)) for store_id in range(1, stores + 1)]
        await connection.executemany("UPDATE store SET credentials = $2 WHERE id = $1", rows)
        await connection.execute("VACUUM ANALYZE", timeout=600)
        await connection.execute("CHECKPOINT", timeout=600)


def sealed(keyring: Keyring, store_id: int, port: int) -> bytes:
    """Credentials of a marketplace where nothing listens yet."""
    own = credentials(store_code(store_id), f"http://{HOST}:{port}/blib/v2", calls_per_second=CALLS_PER_SECOND)
    return keyring.encrypt(json.dumps(own).encode(), purpose_of_store(store_id))


def store_code(store_id: int) -> str:
    return f"store-{store_id}"


async def measure(arguments: argparse.Namespace) -> None:
    async with open_hub() as hub:
        port = free_port(HOST)
        idle = arguments.what == "idle"
        stores = arguments.stores if idle else 1
        listings = arguments.stores if idle else arguments.listings
        await fill(hub.pool, hub.keyring, stores=stores, listings=listings, due=not idle, port=port)
        worker = await hub.start_worker(BREAKER_PROBE_SECONDS_MAX=f"{PROBE_SECONDS:g}")
        if idle:
            await idle_cpu(hub.pool, hub.url, worker.pid, arguments)
        else:
            await due_memory(hub, worker.pid, arguments, port)


async def idle_cpu(pool: Pool, url: str, pid: int, arguments: argparse.Namespace) -> None:
    """Wake every store once, so that the worker holds them all, then let it be idle."""
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE listing_state SET state = 'waiting'; INSERT INTO listing_wait"
            " SELECT tenant_id, listing_id, store_id, 'backoff', now() + interval '800 seconds' FROM listing_state"
            if arguments.waiting
            else "SELECT 1"
        )
    await asyncio.sleep(arguments.warm_seconds)
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    servers = await backends(url)
    before = cpu(processes), cpu(servers)
    started = perf_counter()
    await asyncio.sleep(arguments.seconds)
    took = perf_counter() - started
    worker, server = cpu(processes) - before[0], cpu(servers) - before[1]
    Console().print(
        f"{arguments.stores} idle stores, {took:.0f} s: worker {100 * worker / took:.2f}% of a core,"
        f" PostgreSQL {100 * server / took:.2f}%, worker's memory {memory(processes):.0f} MB"
    )


async def due_memory(hub: Hub, pid: int, arguments: argparse.Namespace, port: int) -> None:
    """The most memory that the worker had while so many listings were due, and whether it grows with what is sent."""
    console = Console(soft_wrap=True)
    process = psutil.Process(pid)
    async with hub.pool.connection() as connection:
        began = perf_counter()
        first_call: float | None = None
        away = Memory(process)
        while perf_counter() - began < arguments.seconds:
            if first_call is None and await connection.fetchval(CALLS, timeout=60):
                first_call = perf_counter() - began
            await away.watch(SAMPLE_SECONDS)
    told = "none" if first_call is None else f"{first_call:.1f} s after its start"
    console.print(
        f"{arguments.listings:,} due listings, {arguments.seconds:g} s without an answer: {away}; first call {told}"
    )
    sandbox = await open_market(hub, arguments, port)
    sent = Memory(process)
    for _ in range(PARTS):
        before = (await asyncio.to_thread(sandbox.status))["writes"]
        await sent.watch(arguments.seconds / PARTS)
        writes = (await asyncio.to_thread(sandbox.status))["writes"] - before
        console.print(f"  {writes * PARTS / arguments.seconds:.0f} writes/s: {sent.newest:.0f} MB")
    console.print(
        f"{arguments.listings:,} due listings, {arguments.seconds:g} s with answers: {sent},"
        f" in the last quarter {sent.growth:+.1f} MB more than in the second"
    )
    most = max(away.most, sent.most)
    console.print(
        f"worker memory with {arguments.listings:,} due listings: {most:.0f} MB;"
        f" {'passed' if most < MEMORY_MAX else 'FAILED'} ({MEMORY_MAX} MB),"
        f" aim of {MEMORY_AIM} MB {'reached' if most <= MEMORY_AIM else 'missed'}"
    )


async def open_market(hub: Hub, arguments: argparse.Namespace, port: int) -> Control:
    """The store's marketplace can be reached from now on. Returns when it has taken the first write."""
    sandbox = await hub.start_sandbox(port)
    # As many as can be reached in the time: the window takes most from one lane of three.
    known = min(arguments.listings, int(3 * CALLS_PER_SECOND * (arguments.seconds + WRITE_SECONDS)))
    await asyncio.to_thread(sandbox.put_store, store_code(1), [f"S-{n}" for n in range(1, known + 1)])

    async def written() -> bool:
        return bool((await asyncio.to_thread(sandbox.status))["writes"])

    await until(written, WRITE_SECONDS, "the first write")
    return sandbox


class Memory:
    """Of one process, in MB. `newest`: of the last sample."""

    def __init__(self, process: psutil.Process):
        self._process = process
        self._samples: list[float] = []

    async def watch(self, seconds: float) -> None:
        """Sample for so long."""
        ends = perf_counter() + seconds
        while (left := ends - perf_counter()) > 0:
            self._samples.append(memory([self._process]))
            await asyncio.sleep(min(left, SAMPLE_SECONDS))

    @property
    def most(self) -> float:
        return max(self._samples)

    @property
    def newest(self) -> float:
        return self._samples[-1]

    @property
    def growth(self) -> float:
        """The most of the last quarter above the most of the second: in the first, caches fill."""
        quarter = max(1, len(self._samples) // 4)
        return max(self._samples[-quarter:]) - max(self._samples[quarter : 2 * quarter] or self._samples)

    def __str__(self) -> str:
        return f"worker's memory at most {self.most:.0f} MB"


async def backends(url: str) -> list[psutil.Process]:
    """The server's process and all of its children."""
    connection = await asyncpg.connect(url)
    try:
        postmaster = psutil.Process(await connection.fetchval("SELECT pg_backend_pid()")).parent()
    finally:
        await connection.close()
    assert postmaster is not None
    return [postmaster, *postmaster.children(recursive=True)]


def cpu(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def memory(processes: list[psutil.Process]) -> float:
    """Resident, MB."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss / 2**20
    return total


def main() -> None:
    asyncio.run(measure(parser().parse_args()))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("what", choices=["idle", "due"])
    made.add_argument("--stores", type=int, default=10_000)
    made.add_argument("--listings", type=int, default=1_000_000)
    made.add_argument("--seconds", type=float, default=30.0)
    made.add_argument("--warm-seconds", type=float, default=15.0)
    made.add_argument("--waiting", action="store_true", help="every listing waits for a time")
    return made


if __name__ == "__main__":
    main()
