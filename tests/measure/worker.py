"""What a worker costs: `python -m tests.measure.worker idle --stores 10000` and `... due --listings 1000000`.

Starts an embedded PostgreSQL in a temporary directory and a worker in a process of its own, as `lumbung serve` does.

    idle    every store has a live listing that was delivered; nothing happens: CPU of worker and PostgreSQL
    due     one store has so many listings due and its marketplace does not answer: memory of the worker
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import asyncpg
import psutil
from rich.console import Console

from lumbung.db.embedded import EmbeddedPostgres
from lumbung.db.migrate import migrate
from lumbung.db.partitions import ensure
from lumbung.db.pool import Pool
from lumbung.keyring import Keyring
from lumbung.model import purpose_of_store
from lumbung.settings import Settings

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


async def fill(pool: Pool, keyring: Keyring, *, stores: int, listings: int, due: bool) -> None:
    await migrate(pool, timeout_seconds=60)
    await ensure(pool, ahead_days=14)
    async with pool.connection() as connection:
        await connection.execute("INSERT INTO tenant (id, name) VALUES (1, 'Toko')")
        await connection.execute("INSERT INTO warehouse (tenant_id, id, name) VALUES (1, 0, 'default')")
        await connection.execute(STORES, stores, timeout=600)
        await connection.execute(LEASES)
        await connection.execute(LINKS)
        await connection.execute(VARIANTS, listings, timeout=600)
        await connection.execute(LISTINGS, listings, stores, timeout=600)
        await connection.execute(STATES, listings, stores, due, timeout=600)
        rows = [(store_id, sealed(keyring, store_id)) for store_id in range(1, stores + 1)]
        await connection.executemany("UPDATE store SET credentials = $2 WHERE id = $1", rows)
        await connection.execute("VACUUM ANALYZE", timeout=600)


def sealed(keyring: Keyring, store_id: int) -> bytes:
    """Credentials of a marketplace that does not exist."""
    fields = ("api_client_id", "api_client_key", "api_seller_key", "signature_key", "username", "store_code")
    credentials = dict.fromkeys(fields, f"store-{store_id}") | {"base_url": "http://127.0.0.1:9/v2"}
    return keyring.encrypt(json.dumps(credentials).encode(), purpose_of_store(store_id))


async def measure(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="lumbung-measure-") as directory:
        home = Path(directory)
        keyring = Keyring.load(home / "keys", create=True)
        with EmbeddedPostgres.start(home / "postgres") as server:
            server.ensure_database("lumbung")
            url = server.url("lumbung")
            async with Pool(url, Settings()) as pool:
                idle = arguments.what == "idle"
                stores = arguments.stores if idle else 1
                listings = arguments.stores if idle else arguments.listings
                await fill(pool, keyring, stores=stores, listings=listings, due=not idle)
                worker = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "lumbung", "serve", "--roles", "worker"),
                    env={
                        **os.environ,
                        "LUMBUNG_DATABASE_URL": url,
                        "LUMBUNG_DATA_DIR": directory,
                        "LUMBUNG_METRICS_PORT": "0",
                        "LUMBUNG_LOG_LEVEL": "error",
                    },
                )
                try:
                    await (idle_cpu if idle else due_memory)(pool, url, worker.pid, arguments)
                finally:
                    with suppress(ProcessLookupError):
                        worker.terminate()
                    await worker.wait()


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


async def due_memory(pool: Pool, url: str, pid: int, arguments: argparse.Namespace) -> None:
    """The most memory that the worker had while so many listings were due."""
    started = perf_counter()
    process = psutil.Process(pid)
    first: float | None = None
    most = 0.0
    async with pool.connection() as connection:
        while perf_counter() - started < arguments.seconds:
            if first is None and await connection.fetchval(CALLS, timeout=60):
                first = perf_counter() - started
            most = max(most, memory([process]))
            await asyncio.sleep(0.25)
    first_call = "none" if first is None else f"{first:.1f} s after its start"
    Console().print(
        f"{arguments.listings} due listings, {arguments.seconds:g} s: worker's memory {most:.0f} MB;"
        f" first call {first_call}"
    )


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["idle", "due"])
    parser.add_argument("--stores", type=int, default=10_000)
    parser.add_argument("--listings", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--warm-seconds", type=float, default=15.0)
    parser.add_argument("--waiting", action="store_true", help="every listing waits for a time")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
