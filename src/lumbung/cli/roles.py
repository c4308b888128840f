"""The roles of a Lumbung process: `api` answers partners, `worker` delivers. Each runs until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog
from prometheus_client import start_http_server

from lumbung import garbage
from lumbung.api.server import make_server
from lumbung.cli import signals
from lumbung.cli.compose import build_api, built_worker, maintain
from lumbung.clock import SystemClock
from lumbung.db.pool import Pool
from lumbung.dispatch.deadline import keep_sweeping
from lumbung.dispatch.gauges import keep_counting
from lumbung.dispatch.metrics import WorkerMetrics
from lumbung.dispatch.supervisor import parent_gone
from lumbung.errors import ConfigurationError
from lumbung.keyring import Keyring
from lumbung.settings import Settings

log = structlog.get_logger()

T = TypeVar("T")

NO_ADDRESS = "--host must be an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them"

Role = Callable[[Settings, str, asyncio.Event], Awaitable[None]]


async def run_api(settings: Settings, url: str, stop: asyncio.Event) -> None:
    """Answer partners until stopped. The database may come later: /readyz says no until then."""
    keyring = Keyring.expected(settings.key_path)
    async with Pool(url, settings, plan_once=True) as pool:
        app, _ = build_api(settings, pool, keyring)
        server = make_server(app, settings)
        garbage.collect_seldom()
        log.info("the partner API listens", url=f"http://{address(settings.host, settings.port)}")
        await _until_stopped(stop, [server.serve(), maintain(pool, settings, keyring=keyring)], on_stop=server.stop)


async def run_worker(settings: Settings, url: str, stop: asyncio.Event) -> None:
    """Deliver until stopped; then finish what is in flight and give the leases back."""
    keyring = Keyring.expected(settings.key_path)
    metrics = WorkerMetrics()
    async with (
        Pool(url, settings, plan_once=True) as pool,
        built_worker(settings, pool, keyring, metrics=metrics) as worker,
    ):
        garbage.collect_seldom()
        log.info("the worker delivers")
        with serving_metrics(settings, metrics):
            await _until_stopped(
                stop,
                [
                    worker.run(stop),
                    maintain(pool, settings, keyring=keyring),
                    keep_counting(pool, settings, metrics, SystemClock()),
                    keep_sweeping(pool, settings),
                ],
            )


@contextmanager
def serving_metrics(settings: Settings, metrics: WorkerMetrics) -> Iterator[int | None]:
    """Answer GET /metrics beside the work; yields the port. A second worker on a machine needs a port of its own, but
    delivers without."""
    if not settings.metrics_port:
        yield None
        return
    try:
        server, thread = start_http_server(settings.metrics_port, settings.metrics_host, metrics.registry)
    except OSError as error:
        log.warning(
            "the worker's metrics cannot be served: set LUMBUNG_METRICS_PORT to a free port, or to 0",
            port=settings.metrics_port,
            error=error.strerror,
        )
        yield None
        return
    log.info("the worker's metrics", url=f"http://{settings.metrics_host}:{server.server_port}/metrics")
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


ROLES: dict[str, Role] = {"api": run_api, "worker": run_worker}


async def _until_stopped(
    stop: asyncio.Event, works: list[Coroutine[object, object, None]], on_stop: Callable[[], None] | None = None
) -> None:
    """Run the first work until it ends by itself after the stop, the others beside it. A crash of one ends all."""
    main, *others = [asyncio.create_task(work) for work in works]
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([main, *others, stopped], return_when=asyncio.FIRST_COMPLETED)
        if on_stop is not None:
            on_stop()
        for task in (main, *others):
            if task.done():
                task.result()
        await main
    finally:
        for ended in (main, stopped, *others):
            ended.cancel()
        await asyncio.gather(main, stopped, *others, return_exceptions=True)


def resolved(host: str) -> str:
    """The IP address of a host's name, which the server takes only; the first one when it has several.

    Raises ConfigurationError.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM) if host else []
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"Cannot listen on {host}: {_why_not(error)}") from error
    if not found:
        raise ConfigurationError(f"Cannot listen: {NO_ADDRESS}")
    return str(found[0][4][0])


def check_port(host: str, port: int) -> None:
    """Raises ConfigurationError when the address cannot be listened on."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(f"Cannot listen on {address(host, port)}: {_why_not(error)}") from error


def address(host: str, port: int) -> str:
    """As it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _why_not(error: Exception) -> str:
    said = (isinstance(error, OSError) and error.strerror) or str(error)
    if isinstance(error, PermissionError):
        return f"{said}. Ports below 1024 are for the system: choose another --port, with a proxy before it"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"{said}. Stop what listens there, or choose another --port"
    return f"{said}. {NO_ADDRESS}"


def free_port(host: str) -> int:
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def run_until_signalled(work: Callable[[asyncio.Event], Awaitable[None]], *, supervised: bool = False) -> None:
    """Run with a stop event that SIGTERM, Ctrl-C or, for a supervised process, the end of its parent sets."""

    async def main() -> None:
        stop = asyncio.Event()
        with signals.setting(stop):
            watching = asyncio.create_task(_watch_parent(stop)) if supervised else None
            try:
                await work(stop)
            finally:
                if watching is not None:
                    watching.cancel()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main())


def run_unless_signalled(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run to its end and return what it gives; SIGTERM or Ctrl-C cancels it and raises KeyboardInterrupt."""
    results: list[T] = []

    async def main(stop: asyncio.Event) -> None:
        running = asyncio.create_task(work())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not running.done():
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            raise KeyboardInterrupt
        results.append(running.result())

    run_until_signalled(main)
    return results[0]


async def _watch_parent(stop: asyncio.Event) -> None:
    await parent_gone()
    stop.set()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
