"""`lumbung demo`: the main job, run before your eyes on this machine, loopback only."""

from __future__ import annotations

import asyncio
import fcntl
import http.client
import json
import os
import random
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import platformdirs
import typer
from rich.console import Console
from rich.table import Table

from lumbung.cli import demo_world as world
from lumbung.cli import logs
from lumbung.cli.compose import installation
from lumbung.cli.roles import ROLES, check_port, free_port, run_until_signalled
from lumbung.cli.serve import role_child
from lumbung.client import PartnerClient, sign
from lumbung.db.database import recreate
from lumbung.db.embedded import EmbeddedPostgres
from lumbung.dispatch.supervisor import Child, Supervisor
from lumbung.errors import ConfigurationError, LumbungError
from lumbung.settings import PREFIX, Settings, load

DATABASE = "lumbung_demo"
DEFAULT_PORT = 8080
DEFAULT_SANDBOX_PORT = 8700
HOST = "127.0.0.1"
WRITE_LOG = "writes.jsonl"  # every write that a marketplace applied, in order
START_SECONDS = 60
DELIVERY_SECONDS = 120
LOOK_SECONDS = 0.05
TRAFFIC_SECONDS = 0.2


def demo(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the API; 0 picks a free one. Default 8080, if free.")
    ] = None,
    sandbox_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the sandbox. Default 8700, if free.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the demonstration keeps its database.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Exit 0 when everything was delivered, else 1.")] = False,
    info: Annotated[Path | None, typer.Option(help="Write URLs and credentials as JSON when all is ready.")] = None,
    traffic: Annotated[bool, typer.Option("--traffic", help="Go on sending random updates.")] = False,
) -> None:
    """Show the main job: updates go in over a signed API, sandbox marketplaces show the right quantities."""
    directory = data_dir or Path(platformdirs.user_data_dir("lumbung-demo"))
    settings = load(data_dir=directory, database_url="", key_file="", host=HOST, port=_choose_port(port, DEFAULT_PORT))
    logs.configure(replace(settings, log_level="warning"))
    console = Console(highlight=False)
    demonstration = Demonstration(
        settings, _choose_port(sandbox_port, DEFAULT_SANDBOX_PORT), console, once=once, info=info, traffic=traffic
    )
    with _only_one(directory):
        console.print("[bold]Starting[/] PostgreSQL, sandbox marketplaces, API and worker ...")
        with EmbeddedPostgres.start(directory) as server:
            asyncio.run(recreate(server.url("postgres"), DATABASE))
            run_until_signalled(lambda stop: demonstration.run(server.url(DATABASE), stop))
    if not demonstration.delivered:
        raise typer.Exit(1)


class Demonstration:
    """The processes, what is sent, and what is shown. `delivered`: every listing showed its exact number."""

    def __init__(
        self, settings: Settings, sandbox_port: int, console: Console, *, once: bool, info: Path | None, traffic: bool
    ):
        self._settings = settings
        self._console = console
        self._once = once
        self._info = info
        self._traffic = traffic
        self._sandbox_port = sandbox_port
        self._api_url = f"http://{HOST}:{settings.port}"
        self._sandbox_url = f"http://{HOST}:{sandbox_port}"
        self.delivered = False

    async def run(self, database_url: str, stop: asyncio.Event) -> None:
        async with installation(self._settings, database_url) as hub:
            seeded = await world.seed(hub, self._sandbox_url)
        processes = asyncio.create_task(
            Supervisor().run(
                self._children(database_url), stop=stop, stop_seconds=self._settings.stop_seconds, on_event=self._event
            )
        )
        show = asyncio.create_task(self._show(seeded, database_url))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([processes, show, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not processes.done() and show.done():
                show.result()
                if not self._once and self.delivered:
                    await self._serve_on(seeded, processes, stopped)
            ended_by_themselves = processes.done() and not stop.is_set()
        finally:
            self._console.print("Stopping ...")
            stop.set()
            show.cancel()
            await asyncio.gather(processes, show, stopped, return_exceptions=True)
        processes.result()
        if ended_by_themselves:
            raise LumbungError("The processes of the demonstration have ended by themselves")

    def _children(self, database_url: str) -> list[Child]:
        sandbox = [sys.executable, "-m", "lumbung", "sandbox", "--supervised", "--host", HOST]
        sandbox += ["--port", str(self._sandbox_port), "--write-log", str(self._settings.data_dir / WRITE_LOG)]
        quiet = {PREFIX + "LOG_LEVEL": "warning", PREFIX + "KEY_FILE": ""}
        children = [Child(name="sandbox", argv=sandbox, env=quiet)]
        for role in ROLES:
            child = role_child(role, self._settings, database_url)
            children.append(replace(child, env={**child.env, **quiet}))
        return children

    def _event(self, name: str, event: str, detail: dict[str, object]) -> None:
        if "exit" in event or "restart" in event:
            self._console.print(f"[yellow]{name}: {event} {detail}[/]")

    async def _show(self, seeded: world.Seeded, database_url: str) -> None:
        await self._until(lambda: _answers(self._sandbox_url, "/_control/status"), START_SECONDS, "the sandbox")
        await self._until(lambda: _answers(self._api_url, "/readyz"), START_SECONDS, "the API")
        for store in world.STORES:
            path = f"/_control/stores/{store.channel}/{store.code}"
            await asyncio.to_thread(_put, self._sandbox_url, path, store.sandbox_store(world.SKUS))
        client = PartnerClient(self._api_url, world.PARTNER_ID, seeded.secret)
        for title, update, numbers in world.EXAMPLES:
            await self._show_example(client, title, update, numbers)
        for update, _ in world.other_updates():
            await asyncio.to_thread(client.update_stocks, update)
        await self._until(self._all_delivered, DELIVERY_SECONDS, "the marketplaces to show every number")
        await self._until(lambda: asyncio.to_thread(_ended, client), DELIVERY_SECONDS, "the history to end")
        self._show_history(await asyncio.to_thread(client.history, limit=1000))
        await self._show_marketplaces()
        self.delivered = True
        if not self._once:
            self._show_how_to_go_on(seeded)
        if self._info is not None:
            _write_info(self._info, self._facts(seeded, database_url))

    async def _show_example(
        self, client: PartnerClient, title: str, update: dict[str, object], numbers: Sequence[int]
    ) -> None:
        self._console.print(f"\n[bold]{title}[/]\nPOST /v1/partner/inventory/updatestocks")
        self._console.print_json(json.dumps(update))
        answer = await asyncio.to_thread(client.update_stocks, update)
        self._console.print(f"{answer.status} {answer.body.decode()}")
        if answer.status != 200:
            raise LumbungError(f"The hub refused the update: {answer.body.decode()}")
        await self._until(lambda: self._sku1_shows(numbers), DELIVERY_SECONDS, f"the marketplaces to show {numbers}")
        for store, number in zip(world.STORES, numbers, strict=True):
            self._console.print(f"  [green]{store.name}[/] now shows [bold]{number}[/]")

    async def _sku1_shows(self, numbers: Sequence[int]) -> bool:
        shown = await asyncio.to_thread(_shown, self._sandbox_url)
        return [shown.get((store.code, store.remote_of("sku1"))) for store in world.STORES] == list(numbers)

    async def _all_delivered(self) -> bool:
        return await asyncio.to_thread(_shown, self._sandbox_url) == world.expected()

    def _show_history(self, answer: Any) -> None:
        history = answer.json
        examples = history["data"][-len(world.EXAMPLES) :]
        self._console.print(
            f"\n[bold]The history[/] (the first {len(examples)} of {history['total_record']} records)\n"
            "GET /v1/partner/inventory/history"
        )
        self._console.print_json(json.dumps(examples))

    async def _show_marketplaces(self) -> None:
        shown = await asyncio.to_thread(_shown, self._sandbox_url)
        table = Table(title="\nWhat the marketplaces show now", title_justify="left")
        for heading in ("SKU", *(store.name for store in world.STORES)):
            table.add_column(heading, justify="left" if heading == "SKU" else "right")
        for sku in world.SKUS:
            table.add_row(sku, *(str(shown[store.code, store.remote_of(sku)]) for store in world.STORES))
        self._console.print(table)
        self._console.print(f"{len(shown)} listings, each with its exact number.")

    def _show_how_to_go_on(self, seeded: world.Seeded) -> None:
        target = "/v1/partner/inventory/history?limit=1&offset=0"
        curl = (
            f"curl -s -H 'partner-id: {world.PARTNER_ID}' -H 'secret: {sign(seeded.secret, target, b'')}'"
            f" '{self._api_url}{target}'"
        )
        for line in (
            "",
            f"API            {self._api_url}  (documentation: {self._api_url}/docs)",
            f"Sandbox        {self._sandbox_url}/_control/listings",
            f"partner-id     {world.PARTNER_ID}",
            f"partner secret {seeded.secret}",
            "",
            "Try it:",
            curl,
        ):
            self._console.print(line, soft_wrap=True, markup=False)

    def _facts(self, seeded: world.Seeded, database_url: str) -> dict[str, object]:
        return {
            "api_url": self._api_url,
            "sandbox_url": self._sandbox_url,
            "partner_id": world.PARTNER_ID,
            "secret": seeded.secret,
            "tenant_id": seeded.tenant_id,
            "warehouses": list(seeded.warehouses),
            "stores": [
                {"id": seeded.stores[store.name], "name": store.name, "channel": store.channel}
                for store in world.STORES
            ],
            "skus": list(world.SKUS),
            "database_url": database_url,
        }

    async def _serve_on(self, seeded: world.Seeded, processes: asyncio.Task[None], stopped: asyncio.Task[bool]) -> None:
        self._console.print("\nServing on. Ctrl-C stops all of it.")
        works: list[asyncio.Task[Any]] = [processes, stopped]
        if self._traffic:
            client = PartnerClient(self._api_url, world.PARTNER_ID, seeded.secret)
            works.append(asyncio.create_task(send_traffic(client, list(seeded.warehouses), self._console)))
        await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        for work in works[2:]:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _until(self, right: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not await right():  # noqa: ASYNC110 (the signal is in another process)
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise LumbungError(f"Waited {seconds} seconds for {what}, in vain") from None


async def send_traffic(
    client: PartnerClient, warehouses: Sequence[str], console: Console, *, pause_seconds: float = TRAFFIC_SECONDS
) -> None:
    """Send random updates for ever, also when the hub is away for a while; an outage is told once."""
    dice = random.Random()  # noqa: S311
    failing = False
    while True:
        update = {
            **world.SYNC_EXAMPLE,
            "sku": dice.choice(world.SKUS),
            "warehouse": dice.choice(warehouses),
            "available_stock": dice.randint(10, 200),
        }
        problem = await asyncio.to_thread(_sent, client, update)
        if problem and not failing:
            console.print(f"Traffic: {problem}; trying again until it is taken", style="yellow", markup=False)
        failing = bool(problem)
        await asyncio.sleep(pause_seconds)


def _sent(client: PartnerClient, update: dict[str, object]) -> str:
    """Why the update was not taken; empty when it was."""
    try:
        answer = client.update_stocks(update)
    except (OSError, http.client.HTTPException) as error:
        client.close()  # the next request connects anew
        return f"no answer ({str(error) or type(error).__name__})"
    return "" if answer.status == 200 else f"{answer.status} {answer.body.decode(errors='replace')}"


def _choose_port(asked: int | None, default: int) -> int:
    """The port asked for; the default, or a free one when somebody has the default."""
    if asked is None:
        try:
            check_port(HOST, default)
        except ConfigurationError:
            return free_port(HOST)
        return default
    if asked == 0:
        return free_port(HOST)
    check_port(HOST, asked)
    return asked


@contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Two demonstrations in one directory would empty each other's database."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "demo.lock").open("w")
    except OSError as error:
        raise ConfigurationError(f"Cannot use {directory}: {error.strerror}. Choose another --data-dir") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"A demonstration runs in {directory} already: stop it, or choose --data-dir"
            ) from None
        yield


def _request(url: str, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method, path, body=body, headers={"content-type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


async def _answers(url: str, path: str) -> bool:
    try:
        status, _ = await asyncio.to_thread(_request, url, "GET", path)
    except (OSError, http.client.HTTPException):
        return False
    return status == 200


def _put(url: str, path: str, value: object) -> None:
    status, body = _request(url, "PUT", path, json.dumps(value).encode())
    if status >= 300:
        raise LumbungError(f"The sandbox refused its set-up: {body.decode(errors='replace')}")


def _shown(sandbox_url: str) -> dict[tuple[str, str], int]:
    """What each listing shows, by (store code, remote variant)."""
    _, body = _request(sandbox_url, "GET", "/_control/listings")
    return {(row["store"], row["remote_variant"]): row["quantity"] for row in json.loads(body)}


def _ended(client: PartnerClient) -> bool:
    return all(record["finished_at"] for record in client.history(limit=1000).json["data"])


def _write_info(path: Path, facts: dict[str, object]) -> None:
    """All of it or nothing: who waits for the file must not read half of it."""
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(facts, file, indent=2)
    partial.replace(path)
