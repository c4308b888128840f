"""Commands as an operator runs them: `lumbung` with words, an exit code, stdout and stderr."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
import stamina
import structlog

from lumbung.cli import main
from lumbung.cli.audit import actor
from lumbung.db.pool import Pool
from lumbung.keyring import Keyring
from lumbung.settings import Settings
from tests.world import World, stock_update

T = TypeVar("T")

CREDENTIALS = {
    "api_client_id": "client-1",
    "api_client_key": "client-key-7731",
    "api_seller_key": "seller-key-9042",
    "username": "toko@example.com",
    "store_code": "TOQ-1",
    "base_url": "http://127.0.0.1:9/blib/v2",
}


@dataclass(frozen=True, slots=True)
class Result:
    exit: int
    out: str
    err: str


class Operator:
    """`operator("tenant", "add", "Toko")` runs a command in this process."""

    def __init__(self, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        self.url = url
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: str) -> Result:
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["lumbung", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = self._capsys.readouterr()
        code = stop.value.code
        assert code is None or isinstance(code, int)
        return Result(code or 0, captured.out, captured.err)

    def done(self, *words: str) -> str:
        """What a command that goes well prints."""
        result = self(*words)
        assert result.exit == 0, result.err
        return result.out

    def refused(self, *words: str) -> str:
        """What a command that ends with 1 says on stderr; it has changed nothing."""
        before = self.contents()
        result = self(*words)
        assert (result.exit, result.out) == (1, "")
        assert self.contents() == before
        return result.err

    def json(self, *words: str) -> Any:
        return json.loads(self.done(*words, "--json"))

    def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        async def fetch() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(self.url)
            try:
                return [dict(row) for row in await connection.fetch(sql, *values)]
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def contents(self) -> dict[str, list[dict[str, Any]]]:
        """Everything that a command of an operator can change."""
        tables = ("tenant", "partner", "warehouse", "store", "store_warehouse", "variant", "listing", "listing_state")
        queries = {name: f"SELECT * FROM {name} ORDER BY 1, 2, 3" for name in (*tables, "contribution", "audit")}  # noqa: S608
        return {name: self.rows(sql) for name, sql in queries.items()}

    def audit(self) -> list[tuple[str, str, Any]]:
        """(action, subject, detail) of every audit row, each by this user."""
        rows = self.rows("SELECT actor, action, subject, detail FROM audit ORDER BY id")
        assert {row["actor"] for row in rows} <= {actor()}
        return [(row["action"], row["subject"], json.loads(row["detail"])) for row in rows]

    def work(self, work: Callable[[World], Awaitable[T]]) -> T:
        """Do something to the only tenant's world without a command."""

        async def opened() -> T:
            async with Pool(self.url, Settings()) as pool:
                return await work(World(pool, self.keyring(), tenant_id=1))

        return asyncio.run(opened())

    def execute(self, query: str, *values: object) -> None:
        """Change the database as no command does."""
        self.work(lambda world: world.execute(query, *values))

    def update(self, sku: str, available: int, **more: Any) -> None:
        self.work(lambda world: world.accepted(stock_update(sku, available, **more)))

    def keyring(self) -> Keyring:
        return Keyring.load(self.folder / "keys", create=True)

    def file(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    def credentials(self, **changes: object) -> str:
        return self.file("credentials.json", json.dumps(CREDENTIALS | changes))


def cells(out: str) -> list[str]:
    """The lines of what was printed; those of a table as `cell | cell`."""
    lines = [" | ".join(filter(None, map(str.strip, line.split("  ")))) for line in out.splitlines()]
    return [line for line in lines if line.strip("\N{BOX DRAWINGS LIGHT HORIZONTAL}")]


@pytest.fixture
def operator(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Operator]:
    monkeypatch.setenv("LUMBUNG_DATABASE_URL", database_url)
    monkeypatch.setenv("LUMBUNG_DATA_DIR", str(tmp_path))
    root = logging.getLogger()
    level = root.level
    with stamina.set_testing(True, attempts=2):
        yield Operator(database_url, tmp_path, monkeypatch, capsys)
    structlog.reset_defaults()
    root.setLevel(level)
    for handler in [held for held in root.handlers if held.get_name() == "lumbung"]:
        root.removeHandler(handler)


@pytest.fixture
def shop(operator: Operator) -> Operator:
    """Tenant Toko (1) with store Main (1), served by default, and SKUs A and B."""
    operator.done("tenant", "add", "Toko")
    operator.done("store", "add", "--channel", "blib", "--name", "Main", "--credentials", operator.credentials())
    operator.done("variant", "import", operator.file("v.csv", "sku,name\nA,Apple\nB,Bear\n"))
    return operator


@pytest.fixture
def stocked(shop: Operator) -> Operator:
    """Store Main is live and shows A as TOQ-1-1-1 (listing 1) and B as TOQ-1-1-2 (listing 2); both are due."""
    shop.done("store", "live", "Main")
    path = shop.file("l.csv", "sku,store,remote_variant\nA,Main,TOQ-1-1-1\nB,Main,TOQ-1-1-2\n")
    shop.done("listing", "import", path)
    shop.update("A", 7, sync=True)
    shop.update("B", 8, sync=True)
    return shop
