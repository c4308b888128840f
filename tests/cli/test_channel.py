"""What channels there are, as an operator sees it."""

from __future__ import annotations

from lumbung.channels.catalogue import CATALOGUE

from .conftest import Operator, cells


def test_every_code_of_the_catalogue_is_listed_and_says_whether_it_has_a_connector(operator: Operator) -> None:
    rows = operator.json("channel", "list")

    assert [row["code"] for row in rows] == list(CATALOGUE)
    assert {row["code"] for row in rows if row["connector"]} >= {"shpe", "bklp", "blib"}
    assert {row["code"]: row["closed"] for row in rows}["bklp"] is True
    table = cells(operator.done("channel", "list"))
    assert table[0] == "CODE | NAME | CONNECTOR | CLOSED | A CALL TAKES"
    assert "shpe | Shopee | yes | no | up to 50 of one item's variations" in table
    assert "elvn | Elevenia | no | yes | -" in table


def test_a_channel_shows_its_limits_and_the_fields_of_both_files(operator: Operator) -> None:
    shown = operator.json("channel", "show", "shpe")

    assert (shown["knows_locations"], shown["reads_back"], shown["merchant_must_authorise"]) == (True, True, True)
    assert shown["calls_per_second_per_application"] == 10.0
    files = {field["name"]: (field["file"], field["required"], field["secret"]) for field in shown["credentials"]}
    assert files["partner_key"] == ("the application", True, True)
    assert files["shop_id"] == ("the store", True, False)
    lines = cells(operator.done("channel", "show", "shpe"))
    assert "calls per second per store | 3.0" in lines
    assert "FIELD | IN THE FILE OF | REQUIRED | SECRET | WHAT IT IS" in lines


def test_a_code_without_a_connector_and_one_that_is_none_say_so(operator: Operator) -> None:
    assert "Elevenia (elvn) has no connector in this version" in operator("channel", "show", "elvn").err
    assert "There is no channel 'nope'" in operator("channel", "show", "nope").err
