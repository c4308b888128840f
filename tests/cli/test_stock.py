from __future__ import annotations

from .conftest import Operator

LISTINGS = "sku,store,remote_variant\nA,Main,TOQ-1-1-1\n"


def test_stock_says_why_a_listing_shows_what_it_shows(shop: Operator) -> None:
    shop.done("warehouse", "add", "bandung")
    shop.done("store", "link", "Main", "--warehouse", "bandung")
    shop.done("listing", "import", shop.file("l.csv", LISTINGS))
    shop.update("A", 10, buffer=2, sync=True)
    shop.update("A", 9, warehouse="bandung", blib=5)
    shop.rows("UPDATE listing_state SET state = 'parked', lane = 0, park_reason = 'Unknown item', last_message = 'No'")

    document = shop.json("stock", "show", "A")

    for level in document["warehouses"]:
        assert level.pop("updated_at").endswith("Z")
    assert document == {
        "sku": "A",
        "warehouses": [
            {
                "warehouse": "default",
                "available": 10,
                "buffer": 2,
                "reserved": 0,
                "sync": True,
                "newest_as_of": None,
                "figures": {},
                "sellable": 8,
            },
            {
                "warehouse": "bandung",
                "available": 9,
                "buffer": 0,
                "reserved": 0,
                "sync": False,
                "newest_as_of": None,
                "figures": {"blib": {"quantity": 5, "named": True}},
                "sellable": 9,
            },
        ],
        "listings": [
            {
                "id": 1,
                "store_id": 1,
                "store": "Main",
                "channel": "blib",
                "remote_variant": '{"blibli_sku": "TOQ-1-1-1"}',
                "contributions": [
                    {"warehouse": "bandung", "quantity": 5, "location": None, "why": "figure of blib"},
                    {"warehouse": "default", "quantity": 8, "location": None, "why": "sellable: 10 - 2 - 0"},
                ],
                "sum": 13,
                "why": "13 = bandung 5 (figure of blib) + default 8 (sellable: 10 - 2 - 0)",
                "due": 13,
                "delivered": None,
                "delivered_at": None,
                "state": "parked",
                "park_reason": "Unknown item",
                "last_outcome": None,
                "last_message": "No",
            }
        ],
    }
    table = shop.done("stock", "show", "A")
    assert "13 = bandung 5 (figure of blib) + default 8 (sellable: 10 - 2 - 0)" in table
    assert "blib=5" in table


def why(operator: Operator) -> tuple[int | None, str]:
    [listing] = operator.json("stock", "show", "A")["listings"]
    return listing["sum"], listing["why"]


def test_stock_says_why_a_listing_shows_nothing(shop: Operator) -> None:
    shop.done("listing", "import", shop.file("l.csv", LISTINGS))
    assert why(shop) == (None, "nothing = default - (no stock was ever sent)")

    shop.update("A", 10)
    assert why(shop) == (None, "nothing = default - (no figure for blib, and sync is off)")

    shop.done("store", "unlink", "Main", "--warehouse", "default")
    assert why(shop) == (None, "nothing: no warehouse serves the store")


def test_a_figure_that_was_left_is_told(shop: Operator) -> None:
    shop.done("listing", "import", shop.file("l.csv", LISTINGS))
    shop.update("A", 10, sync=True)
    shop.update("A", 10)

    assert why(shop) == (10, "10 = default 10 (left for blib when sync was switched off)")
    assert "blib=10 (left)" in shop.done("stock", "show", "A")


def test_an_unknown_sku_is_named(shop: Operator) -> None:
    assert shop.refused("stock", "show", "Z") == "lumbung: There is no SKU 'Z' in the catalogue\n"


def test_what_others_sent_cannot_steer_the_terminal(shop: Operator) -> None:
    shop.done("listing", "import", shop.file("l.csv", LISTINGS))
    shop.update("A", 10, sync=True)
    shop.rows("UPDATE listing_state SET last_message = E'[red]\\x1b[2J'")

    assert "[red]\N{REPLACEMENT CHARACTER}[2J" in shop.done("stock", "show", "A")
