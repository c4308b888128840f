from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from .conftest import Operator


@pytest.fixture
def updated(shop: Operator) -> Operator:
    shop.done("listing", "import", shop.file("l.csv", "sku,store,remote_variant\nA,Main,TOQ-1-1-1\n"))
    shop.update("A", 10, sync=True)
    shop.update("A", 5, sync=True)
    shop.update("B", 1)
    return shop


def test_records_are_shown_newest_first(updated: Operator) -> None:
    page = updated.json("history")

    assert (page["total_record"], page["limit"], page["offset"]) == (3, 20, 0)
    newest, second, first = page["records"]
    assert newest["items"] == []
    assert newest["created_at"].endswith("Z")
    [open_item], [ended] = second["items"], first["items"]
    assert (open_item["quantity"], open_item["finished_at"], open_item["message"]) == (5, None, "")
    assert (ended["quantity"], ended["success"]) == (10, True)
    assert ended["message"] == f"Superseded by {second['transaction_code']}"


def test_pages(updated: Operator) -> None:
    every = updated.json("history")["records"]

    page = updated.json("history", "--limit", "1", "--offset", "1")

    assert (page["total_record"], page["limit"], page["offset"]) == (3, 1, 1)
    assert page["records"] == every[1:2]


def test_only_what_changed_since(updated: Operator) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)

    assert updated.json("history", "--updated-at", later.isoformat())["records"] == []
    assert updated.json("history", "--updated-at", "2020-01-01T00:00:00Z")["total_record"] == 3


def test_a_table_has_a_line_for_each_item(updated: Operator) -> None:
    result = updated("history")

    rows = [line.split("   ") for line in result.out.splitlines()[3:] if line.strip()]
    states = [[cell.strip() for cell in row if cell.strip()][-1] for row in rows]
    assert len(rows) == 3
    assert states[0] == "no listing"
    assert states[1] == "in progress"
    assert states[2].startswith("Superseded by ")
    assert result.err == "3 of 3 records\n"


@pytest.mark.parametrize("text", ["yesterday", "2026-01-31T13:00:00"])
def test_a_time_has_an_offset(shop: Operator, text: str) -> None:
    wrong = "lumbung: --updated-at must be a time with its offset, such as 2026-01-31T13:00:00+07:00\n"
    assert shop.refused("history", "--updated-at", text) == wrong


def test_a_page_has_a_limit(shop: Operator) -> None:
    assert shop.refused("history", "--limit", "1001") == "lumbung: --limit may be up to 1000\n"
