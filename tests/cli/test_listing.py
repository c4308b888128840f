from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from lumbung.db.wake import CHANNEL
from lumbung.errors import LockBusy, Unavailable
from lumbung.inventory import listings as inventory
from tests.world import World

from .conftest import Operator

HEADER = "sku,store,remote_variant\n"


def load(operator: Operator, content: str, *more: str) -> str:
    return operator.done("listing", "import", operator.file("l.csv", HEADER + content), *more)


def refused(operator: Operator, content: str) -> str:
    path = operator.file("l.csv", HEADER + content)
    return operator.refused("listing", "import", path).replace(str(Path(path).parent) + "/", "")


def mapped(operator: Operator) -> list[tuple[int, str, str]]:
    """(listing, SKU, blibli sku)"""
    rows = operator.json("listing", "list")
    return [(row["id"], row["sku"], json.loads(row["remote_variant"])["blibli_sku"]) for row in rows]


def test_listings_are_imported(shop: Operator) -> None:
    imported = load(shop, 'A,Main,TOQ-1-1-1\nB,1,"{""blibli_sku"": ""TOQ-1-1-2""}"\n')

    assert imported == "Imported 2 listings: 2 new, 0 moved from another SKU, 0 there already\n"
    assert mapped(shop) == [(1, "A", "TOQ-1-1-1"), (2, "B", "TOQ-1-1-2")]
    assert shop.json("listing", "list", "--limit", "1") == [
        {
            "id": 1,
            "sku": "A",
            "store_id": 1,
            "store": "Main",
            "channel": "blib",
            "remote_variant": '{"blibli_sku": "TOQ-1-1-1"}',
            "state": None,
            "quantity_due": None,
            "quantity_delivered": None,
            "version_due": None,
            "version_delivered": None,
            "delivered_at": None,
            "park_reason": None,
            "last_outcome": None,
            "last_message": None,
        }
    ]
    detail = {"first_line": 2, "last_line": 3, "added": 2, "unchanged": 0, "remapped": 0}
    assert shop.audit()[-1] == ("listing.import", "l.csv", detail)


def test_a_new_listing_is_due_when_stock_is_known(shop: Operator) -> None:
    shop.update("A", 7, sync=True)

    load(shop, "A,Main,TOQ-1-1-1\nB,Main,TOQ-1-1-2\n")

    assert shop.work(World.due) == {"TOQ-1-1-1": 7, "TOQ-1-1-2": None}


def test_importing_the_same_again_changes_nothing(shop: Operator) -> None:
    load(shop, "A,Main,TOQ-1-1-1\n")
    before = shop.contents()["listing"]

    again = load(shop, "A,Main,TOQ-1-1-1\n")

    assert again == "Imported 1 listings: 0 new, 0 moved from another SKU, 1 there already\n"
    assert shop.contents()["listing"] == before


def test_a_place_of_another_sku_is_moved(shop: Operator) -> None:
    load(shop, "A,Main,TOQ-1-1-1\n")

    moved = load(shop, "B,Main,TOQ-1-1-1\n")

    assert moved == "Imported 1 listings: 0 new, 1 moved from another SKU, 0 there already\n"
    assert mapped(shop) == [(2, "B", "TOQ-1-1-1")]


WRONG = (
    "A,Main,TOQ-1-1-1\n"
    "Z,Main,TOQ-1-1-2\n"
    "A,Nowhere,TOQ-1-1-3\n"
    "A,Main,no/such\n"
    'B,1,"{""blibli_sku"":""TOQ-1-1-1""}"\n'
    "B,Main\n"
    ",Main,TOQ-1-1-4\n"
)


def test_every_wrong_row_is_named_and_nothing_imported(shop: Operator) -> None:
    said = refused(shop, WRONG).splitlines()

    rejected = said.pop(4)
    assert rejected.startswith("  line 5: ")
    assert "Blibli" in rejected or "blibli_sku" in rejected
    assert said == [
        "lumbung: l.csv: 7 of 7 rows are wrong, nothing was imported",
        "  line 2: the same place as line 6",
        "  line 3: sku 'Z' is not in the catalogue; add it with `lumbung variant import`",
        "  line 4: there is no store 'Nowhere'",
        "  line 6: the same place as line 2",
        "  line 7: expected 3 values, found 2",
        "  line 8: sku must have 1 to 255 characters",
    ]


def test_the_good_rows_are_imported_when_that_is_wanted(shop: Operator) -> None:
    path = shop.file("l.csv", HEADER + WRONG + "B,Main,TOQ-1-1-9\n")

    result = shop("listing", "import", path, "--good-rows")

    assert result.exit == 1
    assert result.out == "Imported 1 listings: 1 new, 0 moved from another SKU, 0 there already\n"
    assert result.err.splitlines()[0] == f"lumbung: {path}: 7 of 8 rows were skipped"
    assert mapped(shop) == [(1, "B", "TOQ-1-1-9")]


def test_a_store_of_a_channel_without_connector_takes_no_listing(shop: Operator) -> None:
    shop.work(lambda world: world.store("Old", "elvn"))

    assert refused(shop, "A,Old,1\n").splitlines()[1] == (
        "  line 2: store 'Old' is on elvn, which has no connector in this version"
    )


def test_a_lock_that_others_hold_is_waited_for(shop: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fail_first(monkeypatch, lambda: LockBusy("busy"), times=1)

    load(shop, "A,Main,TOQ-1-1-1\n")

    assert calls() == 2
    assert mapped(shop) == [(1, "A", "TOQ-1-1-1")]
    assert len([action for action, _, _ in shop.audit() if action == "listing.import"]) == 1


def test_an_import_that_breaks_off_says_how_far_it_came(shop: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMBUNG_CHUNK_ROWS_MAX", "1")
    fail_first(monkeypatch, lambda: Unavailable("gone"), times=1, after=1)

    result = shop("listing", "import", shop.file("l.csv", HEADER + "A,Main,TOQ-1-1-1\nB,Main,TOQ-1-1-2\n"))

    assert (result.exit, result.out) == (1, "")
    assert result.err == "1 rows, before line 3, were imported\nlumbung: gone\n"
    assert mapped(shop) == [(1, "A", "TOQ-1-1-1")]


def fail_first(
    monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], *, times: int, after: int = 0
) -> Callable[[], int]:
    """Importing a chunk fails `times` times, after `after` that went well; call what it gives for all calls so far."""
    real, calls = inventory.import_listings, 0

    async def failing(*args: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if after < calls <= after + times:
            raise error()
        return await real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("lumbung.cli.listing.import_listings", failing)
    return lambda: calls


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[asyncio.Queue[str]]:
    heard: asyncio.Queue[str] = asyncio.Queue()
    connection = await asyncpg.connect(url)
    await connection.add_listener(CHANNEL, lambda _connection, _pid, _channel, payload: heard.put_nowait(str(payload)))
    yield heard
    await connection.close()


@pytest.mark.parametrize("words", [("listing", "import", "l.csv"), ("store", "live", "Main"), ("store", "resume", "1")])
def test_workers_are_woken_by_what_makes_something_due(shop: Operator, words: tuple[str, ...]) -> None:
    shop.file("l.csv", HEADER + "A,Main,TOQ-1-1-1\n")
    if words[1] == "resume":
        shop.done("store", "live", "Main")
        shop.done("store", "pause", "Main")

    async def heard() -> str:
        async with listening(shop.url) as queue:
            named = [str(shop.folder / word) if word == "l.csv" else word for word in words]
            await asyncio.to_thread(shop.done, *named)
            return await asyncio.wait_for(queue.get(), timeout=10)

    assert asyncio.run(heard()) == "1"


def test_listings_are_removed_by_id(shop: Operator) -> None:
    load(shop, "A,Main,TOQ-1-1-1\nA,Main,TOQ-1-1-2\nB,Main,TOQ-1-1-3\n")
    shop.update("A", 5, sync=True)

    assert shop.done("listing", "remove", "--id", "1", "--id", "3") == "Removed 2 listings\n"

    assert mapped(shop) == [(2, "A", "TOQ-1-1-2")]
    [record] = shop.work(World.history)
    ended = [(item.success, item.message) for item in record.items if item.finished_at is not None]
    assert ended == [(False, "The listing was removed")]
    assert shop.audit()[-2:] == [
        ("listing.remove", "listing:1", {"store_id": 1, "remote_variant": '{"blibli_sku": "TOQ-1-1-1"}'}),
        ("listing.remove", "listing:3", {"store_id": 1, "remote_variant": '{"blibli_sku": "TOQ-1-1-3"}'}),
    ]


def test_a_listing_is_removed_by_its_place(shop: Operator) -> None:
    load(shop, "A,Main,TOQ-1-1-1\n")

    assert shop.done("listing", "remove", "--store", "Main", "--remote-variant", "TOQ-1-1-1") == "Removed 1 listing\n"
    assert mapped(shop) == []


def test_what_is_not_there_is_not_removed(shop: Operator) -> None:
    load(shop, "A,Main,TOQ-1-1-1\n")

    unknown = "lumbung: There is no listing 2, 3; nothing was removed\n"
    assert shop.refused("listing", "remove", "--id", "3", "--id", "1", "--id", "2") == unknown
    nowhere = 'lumbung: Store \'Main\' has no listing {"blibli_sku": "X-1"}\n'
    assert shop.refused("listing", "remove", "--store", "1", "--remote-variant", "X-1") == nowhere


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--store", "Main"),
        ("--remote-variant", "X"),
        ("--id", "1", "--store", "Main"),
        ("--id", "1", "--store", "Main", "--remote-variant", "X"),
    ],
)
def test_a_removal_says_what(shop: Operator, words: tuple[str, ...]) -> None:
    which = "lumbung: Say which: --id (once or more), or --store with --remote-variant\n"
    assert shop.refused("listing", "remove", *words) == which


def test_lists_are_narrowed_and_limited(shop: Operator) -> None:
    other = shop.credentials(store_code="TOQ-2")
    shop.done("store", "add", "--channel", "blib", "--name", "Two", "--credentials", other)
    load(shop, "A,Main,TOQ-1-1-1\nB,Main,TOQ-1-1-2\nA,Two,TOQ-1-1-1\n")

    assert [row["id"] for row in shop.json("listing", "list", "--store", "Two")] == [3]
    assert [row["id"] for row in shop.json("listing", "list", "--sku", "A")] == [1, 3]
    result = shop("listing", "list", "--limit", "2")
    assert (result.exit, result.err) == (0, "There are more than 2; see more with --limit\n")
    assert shop("listing", "list", "--limit", "3").err == ""
    unknown = "lumbung: There is no store 'Three'; `lumbung store list` shows them\n"
    assert shop.refused("listing", "list", "--store", "Three") == unknown
