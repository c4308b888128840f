"""The embedded PostgreSQL dies under a running `serve`, which starts it again by itself."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest
import structlog

from lumbung.cli import keeping
from lumbung.client import PartnerClient
from lumbung.db.pool import Pool
from lumbung.errors import ConfigurationError
from lumbung.keyring import Keyring
from lumbung.settings import Settings
from tests.flow.hub import blibli_credentials
from tests.world import PARTNER_ID, PARTNER_SECRET, World

from .test_processes import Lumbung, free_port, get, left_behind

STORE = "TOP-70001"
REMOTE = f"{STORE}-00001-00001"
GONE = "the embedded PostgreSQL is gone: it is started again"
NOT_YET = "the embedded PostgreSQL does not run yet, trying again"
BACK = "the embedded PostgreSQL runs again"


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path: the socket's name is limited."""
    folder = Path(tempfile.mkdtemp(prefix="lmb-")).resolve()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    """What was started last is stopped first."""
    with ExitStack() as stack:
        yield stack


def started(stack: ExitStack, process: Lumbung) -> Lumbung:
    stack.callback(process.until_ended)
    stack.callback(process.terminate)
    return process


def postmaster(place: Path) -> int:
    return int((place / "data" / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def database(place: Path) -> str:
    return f"postgresql://postgres@/lumbung?host={place}/data/postgres&port=5432"


def marketplace(stack: ExitStack, place: Path) -> str:
    """A sandbox with one store that shows one listing."""
    url = f"http://127.0.0.1:{free_port()}"
    sandbox = started(stack, Lumbung("sandbox", "--port", url.rsplit(":", 1)[1], place=place))
    sandbox.until(lambda: get(f"{url}/_control/status")[0] == 200, "the sandbox")
    given = blibli_credentials(url, STORE)
    seller = {
        name: given[name] for name in ("api_client_id", "api_client_key", "api_seller_key", "signature_key", "username")
    }
    listed = {**seller, "listings": [{"remote_variant": REMOTE, "sku": "sku1", "quantity": 0}]}
    body = json.dumps(listed).encode()
    request = urllib.request.Request(f"{url}/_control/stores/blib/{STORE}", data=body, method="PUT")  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        assert answer.status < 300
    return url


async def merchant(place: Path, sandbox: str) -> None:
    """A tenant with a partner and a live store that lists sku1."""
    keyring = Keyring.load(place / "data" / "keys", create=False)
    async with Pool(database(place), Settings()) as pool:
        world = World(pool, keyring)
        await world.tenant()
        await world.partner()
        await world.store("Padi", credentials=blibli_credentials(sandbox, STORE))
        await world.variants("sku1")
        await world.listings([("sku1", "Padi", REMOTE)])


def works(place: Path, role: str) -> bool:
    """Whether a role is at home in the database: the schema is there, and a worker listens for wake-ups."""
    query = {
        "api": "SELECT to_regclass('store_lease') IS NOT NULL",
        "worker": "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'LISTEN%')",
    }[role]

    async def ask() -> bool:
        connection = await asyncpg.connect(database(place), timeout=10)
        try:
            return bool(await connection.fetchval(query))
        finally:
            await connection.close()

    try:
        return asyncio.run(ask())
    except (OSError, asyncpg.PostgresError):
        return False  # there is no server, or no database, yet


def shown(sandbox: str) -> int:
    [row] = json.loads(get(f"{sandbox}/_control/listings")[1])
    return int(row["quantity"])


def test_serve_starts_its_database_again_and_goes_on_accepting_and_delivering(
    place: Path, processes: ExitStack
) -> None:
    sandbox = marketplace(processes, place)
    url = f"http://127.0.0.1:{free_port()}"
    serve = started(
        processes,
        Lumbung("serve", "--port", url.rsplit(":", 1)[1], "--data-dir", str(place / "data"), place=place),
    )
    serve.until_ready(url)
    asyncio.run(merchant(place, sandbox))
    client = PartnerClient(url, PARTNER_ID, PARTNER_SECRET)

    def deliver(quantity: int) -> None:
        update = {
            "sku": "sku1", "sync_stock": True, "warehouse": "default", "available_stock": quantity,
            "buffer_stock": 0, "channel_stock": [],
        }  # fmt: skip
        serve.until(lambda: client.update_stocks(update).status == 200, "an accepted update")
        serve.until(lambda: shown(sandbox) == quantity, f"a delivery of {quantity}")

    deliver(5)
    killed = postmaster(place)
    os.kill(killed, signal.SIGKILL)
    serve.until(lambda: BACK in serve.said, "the database")
    serve.until_ready(url)
    assert postmaster(place) != killed
    deliver(6)
    assert [serve.said.count(line) for line in (GONE, BACK)] == [1, 1]
    serve.terminate()
    assert serve.until_ended() == 0
    assert [line for line in left_behind(place) if "sandbox" not in line] == []


@pytest.mark.parametrize("role", ["api", "worker"])
def test_a_single_role_starts_its_database_again_too(place: Path, processes: ExitStack, role: str) -> None:
    env = {"LUMBUNG_METRICS_PORT": "0", "LUMBUNG_PORT": str(free_port()), "LUMBUNG_DATA_DIR": str(place / "data")}
    serve = started(processes, Lumbung("serve", "--roles", role, place=place, **env))
    serve.until(lambda: works(place, role), f"the {role} at work")
    os.kill(postmaster(place), signal.SIGKILL)
    serve.until(lambda: BACK in serve.said, "the database")
    serve.terminate()
    assert serve.until_ended() == 0
    assert ("the worker stopped" in serve.said) == (role == "worker")
    assert left_behind(place) == []


@pytest.mark.parametrize("variable", ["LUMBUNG_METRICS_PORT", "LUMBUNG_PORT"])
def test_a_port_that_cannot_be_one_is_refused_by_its_variable_before_anything_is_started(
    place: Path, variable: str
) -> None:
    serve = Lumbung("serve", "--roles", "worker", "--data-dir", str(place / "data"), place=place, **{variable: "99999"})
    assert serve.until_ended() == 78
    assert serve.said == f"lumbung: {variable} must be a port, 0 to 65535, not '99999'\n"
    assert not (place / "data").exists()


class OverError(Exception):
    """Nothing is left to look at."""


class Failing:
    """A server that dies as often as told; the time passes only in pauses."""

    def __init__(self, *looks: bool, fails: int = 0):
        self.looks = list(looks)
        self.fails = fails
        self.pauses: list[float] = []
        self.starts = 0

    def is_up(self) -> bool:
        if not self.looks:
            raise OverError
        return self.looks.pop(0)

    def revive(self) -> None:
        self.starts += 1
        if self.starts <= self.fails:
            raise ConfigurationError("No space left on device")

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


async def kept(server: Failing) -> list[str]:
    """The lines that were logged until there is nothing to look at any more."""
    with structlog.testing.capture_logs() as logged, pytest.raises(OverError):
        await keeping.keep_running(server, sleep=server.pause)
    return [entry["event"] for entry in logged]


async def test_a_server_that_does_not_start_is_tried_ever_more_rarely_and_told_of_once() -> None:
    server = Failing(True, False, fails=8)

    assert await kept(server) == [GONE, NOT_YET, BACK]
    assert server.pauses == [1, 1, 0, 1, 2, 4, 8, 16, 30, 30, 30, 1]


async def test_a_server_that_dies_again_and_again_is_given_ever_longer_pauses() -> None:
    server = Failing(False, False, True, False)

    assert await kept(server) == [GONE, BACK] * 3
    assert server.pauses == [1, 0, 1, 1, 1, 1, 2, 1]


async def test_after_a_steady_life_it_is_started_at_once_again() -> None:
    server = Failing(False, *[True] * 60, False)

    await kept(server)
    assert server.pauses[-2:] == [0, 1]
