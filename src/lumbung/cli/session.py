"""What a command runs in: settings and logs, then the database and the keys, then an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import stamina
import typer

from lumbung import settings as configuration
from lumbung.channels.http import HttpClient
from lumbung.cli import logs
from lumbung.clock import SystemClock
from lumbung.db.pool import Pool
from lumbung.db.query import Connection
from lumbung.errors import LockBusy
from lumbung.settings import Settings

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

T = TypeVar("T")

LOCK_ATTEMPTS = 5

TenantOption = Annotated[
    str | None, typer.Option("--tenant", help="The tenant's name or id; may be left out when there is only one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@dataclass(frozen=True, slots=True)
class Root:
    """The options of the root command."""

    data_dir: Path | None = None
    verbose: bool = False


def settings_of(context: typer.Context) -> Settings:
    """The settings of this command, with logs set up by them. Raises ConfigurationError."""
    root: Root = context.obj
    settings = configuration.load(data_dir=root.data_dir)
    if root.verbose:
        settings = replace(settings, log_level="debug")
    logs.configure(settings)
    return settings


def run(context: typer.Context, work: Callable[[Installation], Awaitable[T]]) -> T:
    """Run `work` on the installation, its database started where it is the embedded one."""
    from lumbung.cli import compose  # the web framework comes with it, and --help can do without

    settings = settings_of(context)

    async def opened(url: str) -> T:
        async with compose.installation(settings, url) as hub:
            return await work(hub)

    with compose.database(settings) as url:
        return asyncio.run(opened(url))


def http_client(settings: Settings) -> HttpClient:
    """A client for marketplaces. Make it inside a running event loop and use `async with`.

    Raises ConfigurationError when calls cannot leave from where they should.
    """
    return HttpClient(
        SystemClock(),
        connect_timeout_seconds=settings.connect_timeout_seconds,
        call_timeout_seconds_max=settings.call_timeout_seconds_max,
        answer_bytes_max=settings.answer_bytes_max,
        source_address=settings.call_source_address,
    )


async def retried(work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` again when it met a lock that others hold, a few times."""
    async for attempt in stamina.retry_context(on=LockBusy, attempts=LOCK_ATTEMPTS, timeout=None, wait_initial=0.1):
        with attempt:
            result = await work()
    return result


@asynccontextmanager
async def locking(pool: Pool, settings: Settings) -> AsyncIterator[Connection]:
    """A transaction that waits for row locks as long as an update on its own does."""
    async with pool.transaction(lock_timeout_ms=settings.update_lock_timeout_ms) as connection:
        yield connection
