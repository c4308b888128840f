"""The composition root: the only place that builds things and hands them to each other."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace

import structlog

from lumbung.api.app import create_app
from lumbung.api.bodies import Bodies
from lumbung.api.context import ApiContext
from lumbung.api.group_commit import GroupCommit
from lumbung.api.metrics import ApiMetrics
from lumbung.api.partners import Partners
from lumbung.channels.base import Channel
from lumbung.channels.http import HttpClient
from lumbung.channels.registry import CHANNELS
from lumbung.cli import key_file
from lumbung.cli.doctor import check_clock
from lumbung.clock import Clock, SystemClock
from lumbung.db import doctor as asked
from lumbung.db import history, lease, migrate, partitions, schema, stats, stock, tenants
from lumbung.db.embedded import EmbeddedPostgres
from lumbung.db.pool import Pool
from lumbung.db.wake import Listener, Waker
from lumbung.dispatch.metrics import WorkerMetrics
from lumbung.dispatch.opening import Opener, times_of
from lumbung.dispatch.postgres import PostgresStorage
from lumbung.dispatch.worker import Worker
from lumbung.errors import LumbungError
from lumbung.inventory.stock import Rules
from lumbung.keyring import Keyring
from lumbung.settings import Settings

log = structlog.get_logger()

DATABASE = "lumbung"
STRICT_SIGNATURE_KEPT = 2  # windows: one behind and one ahead of the clock


@dataclass(frozen=True, slots=True)
class Installation:
    """What a command works on: the database is there and its schema is up to date."""

    settings: Settings
    pool: Pool
    keyring: Keyring


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """The URL of the database: the external one, or the embedded one, started if nobody runs it yet."""
    with database_server(settings) as (url, _):
        yield url


@contextmanager
def database_server(settings: Settings) -> Iterator[tuple[str, EmbeddedPostgres | None]]:
    """The same with the embedded server, for who is to keep it running."""
    if settings.database_url:
        yield settings.database_url, None
        return
    with EmbeddedPostgres.start(settings.data_dir) as server:
        server.ensure_database(DATABASE)
        yield server.url(DATABASE), server


@asynccontextmanager
async def installation(settings: Settings, url: str) -> AsyncIterator[Installation]:
    """Open a database, bring its schema up to date, load the keys."""
    keyring = Keyring.expected(settings.key_path)  # one that is corrupt is told before anything is done
    async with Pool(url, settings) as pool:
        await bring_up(pool, settings)
        await key_file.ensure(pool, keyring)
        yield Installation(settings, pool, keyring)


async def bring_up(pool: Pool, settings: Settings) -> None:
    """Schema and partitions. Raises Unavailable while the database is away."""
    for applied in await migrate.migrate(pool, timeout_seconds=settings.migrate_timeout_seconds):
        log.info("migration applied", number=applied.number, name=applied.name)
    async with pool.connection() as connection:
        version = await schema.schema_version(connection)
    if version > schema.newest_version():
        log.warning(
            "the schema is newer than this Lumbung: install the version that made it, or a newer one",
            schema_version=version,
            known_version=schema.newest_version(),
        )
    await partitions.ensure(pool, ahead_days=settings.partitions_ahead_days)


async def drop_old(pool: Pool, settings: Settings) -> None:
    """What the histories have kept for long enough."""
    for name in await partitions.drop_old(
        pool,
        call_days=settings.call_retention_days,
        history_days=settings.history_retention_days,
        statement_seconds_max=settings.migrate_timeout_seconds,
    ):
        log.info("partition dropped", name=name)
    removed = await history.remove_old(pool)
    if removed:
        log.info("old updates removed", records=removed)


async def warn_of_clocks(pool: Pool, clock: Clock) -> None:
    """What two processes compare goes by the database's clock; as_of and signed timestamps by this machine's."""
    async with pool.connection() as connection:
        before = clock.now()
        server = await asked.server(connection)
        finding = check_clock(before, server.now, clock.now())
    if not finding.ok:
        log.warning("the clocks of this machine and of the database differ", found=finding.message, do=finding.advice)


async def maintain(
    pool: Pool, settings: Settings, *, keyring: Keyring | None = None, clock: Clock | None = None
) -> None:
    """What every role does at start and hourly, also when the database comes later than the process. Never ends.

    `keyring`: its file is made where there is none and nothing needs one.
    """
    failed = ""
    while True:
        try:
            await bring_up(pool, settings)
            if keyring is not None:
                await key_file.ensure(pool, keyring)
            await warn_of_clocks(pool, clock or SystemClock())
            await drop_old(pool, settings)
            async with pool.connection() as connection:
                await stock.forget_idempotency_keys(connection, seconds=settings.idempotency_key_seconds)
                kept = settings.timestamp_window_seconds * STRICT_SIGNATURE_KEPT
                await tenants.forget_signatures(connection, seconds=kept)
                await lease.forget_workers(connection)
                if settings.stats_retention_days:
                    await stats.forget(connection, days=settings.stats_retention_days)
            await history.fold(pool)
        except LumbungError as error:
            if str(error) != failed:
                log.warning("not ready, trying again", error=str(error))
            failed = str(error)
            await asyncio.sleep(settings.poll_seconds)
            continue
        if failed:
            log.info("ready")
        failed = ""
        await _roll_up_for(settings.maintenance_interval_seconds, pool, settings)


async def _roll_up_for(seconds: float, pool: Pool, settings: Settings) -> None:
    """Reading the history is exact without it, and slower: that the database is away is told by `maintain`."""
    clock = SystemClock()
    ends = clock.monotonic() + seconds
    while (left := ends - clock.monotonic()) > 0:
        with suppress(LumbungError):
            await history.roll_up(pool)
        await asyncio.sleep(min(left, settings.history_roll_up_seconds))


def rules(settings: Settings) -> Rules:
    return Rules(
        connectors=frozenset(CHANNELS),
        idempotency_key_seconds=settings.idempotency_key_seconds,
    )


def build_api(
    settings: Settings, pool: Pool, keyring: Keyring, *, clock: Clock | None = None
) -> tuple[Callable[..., Awaitable[None]], ApiContext]:
    """The API as an ASGI application, and what its routes work with."""
    clock, metrics = clock or SystemClock(), ApiMetrics()
    waker = Waker(pool, interval_seconds=settings.wake_interval_ms / 1000)
    commits = GroupCommit(pool, rules(settings), settings, waker=waker, metrics=metrics, clock=clock)
    partners = Partners(pool, keyring, settings, clock)
    context = ApiContext(settings, clock, pool, Bodies(settings), partners, commits, metrics)
    return create_app(context, waker), context


@asynccontextmanager
async def built_worker(
    settings: Settings,
    pool: Pool,
    keyring: Keyring,
    *,
    channels: Mapping[str, Channel] = CHANNELS,
    metrics: WorkerMetrics | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Worker]:
    """A worker with the one HTTP client of its process. Raises ConfigurationError when its calls cannot leave from
    where they should."""
    clock = clock or SystemClock()
    async with (
        HttpClient(
            clock,
            connect_timeout_seconds=settings.connect_timeout_seconds,
            call_timeout_seconds_max=settings.call_timeout_seconds_max,
            connections_per_host_max=settings.calls_in_flight_max,
            answer_bytes_max=settings.answer_bytes_max,
            source_address=settings.call_source_address,
        ) as http,
        Pool(pool.url, replace(settings, database_connections_max=1), plan_once=True) as lease_pool,
    ):
        yield Worker(
            PostgresStorage(pool, lease_pool, settings, times_of(channels, settings)),
            Listener(pool, settings),
            settings,
            name=f"{socket.gethostname()}:{os.getpid()}",
            lifetime_seconds=settings.lease_seconds,
            opener=Opener(channels, http, keyring, clock),
            clock=clock,
            metrics=metrics or WorkerMetrics(),
            dice=random.Random().random,  # noqa: S311 - spreads retries: nobody gains by guessing
        )
