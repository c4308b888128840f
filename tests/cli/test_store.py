from __future__ import annotations

import json
from pathlib import Path

import pytest

from lumbung.db import stores
from lumbung.model import purpose_of_store
from tests.world import World

from .conftest import CREDENTIALS, Operator

ADD = ("store", "add", "--channel", "blib", "--name", "Main", "--credentials")


@pytest.fixture
def toko(operator: Operator) -> Operator:
    operator.done("tenant", "add", "Toko")
    return operator


def mode(operator: Operator) -> tuple[str, str | None]:
    [store] = operator.json("store", "list")
    return store["mode"], store["pause_reason"]


def test_a_new_store_is_observed_and_served_by_default(toko: Operator) -> None:
    result = toko(*ADD, toko.credentials())

    assert result.out == "Store 'Main' added (id 1, observe, served by default)\n"
    assert result.err == "Nothing is written to the marketplace until `lumbung store live 1`\n"
    [store] = toko.json("store", "list")
    assert store.pop("created_at").endswith("Z")
    assert store == {
        "id": 1,
        "tenant_id": 1,
        "tenant": "Toko",
        "channel": "blib",
        "application": None,
        "name": "Main",
        "mode": "observe",
        "pause_reason": None,
        "authorised_until": None,
        "listings": 0,
        "warehouses": {"default": None},
    }
    detail = {"name": "Main", "channel": "blib", "mode": "observe", "warehouses": {"default": None}}
    assert toko.audit()[1:] == [("store.add", "store:1", detail)]
    assert toko.rows("SELECT settled_at IS NOT NULL AS settled FROM store_warehouse") == [{"settled": True}]


def test_a_store_may_be_live_and_served_by_others_from_the_start(toko: Operator) -> None:
    toko.done("warehouse", "add", "bandung")
    toko.done("warehouse", "add", "a=b")

    result = toko(*ADD, toko.credentials(), "--warehouse", "bandung", "--warehouse", "a=b", "--live")

    assert (result.out, result.err) == ("Store 'Main' added (id 1, live, served by bandung, a=b)\n", "")
    assert toko.json("store", "list")[0]["warehouses"] == {"bandung": None, "a=b": None}


def test_credentials_are_encrypted_for_their_store(toko: Operator) -> None:
    toko.done(*ADD, toko.credentials())

    [row] = toko.rows("SELECT credentials FROM store")
    assert json.loads(toko.keyring().decrypt(row["credentials"], purpose_of_store(1))) == CREDENTIALS
    everything = repr(toko.contents())
    for secret in ("client-key-7731", "seller-key-9042"):
        assert secret not in everything
        assert secret.encode().hex() not in everything


def test_credentials_may_be_toml_with_numbers(toko: Operator) -> None:
    lines = [f'{name} = "{value}"' for name, value in CREDENTIALS.items()]
    path = toko.file("credentials.toml", "\n".join([*lines, "calls_per_second = 5"]))

    toko.done(*ADD, path)

    [row] = toko.rows("SELECT credentials FROM store")
    opened = json.loads(toko.keyring().decrypt(row["credentials"], purpose_of_store(1)))
    assert opened == CREDENTIALS | {"calls_per_second": "5"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", '{"a": \n "topsecret', "c.json, line 2, column 2: not JSON (Unterminated string starting at)"),
        ("c.json", "[1]", 'c.json must hold a JSON object, such as {"api_client_id": "..."}'),
        ("c.json", b"\xff{}", "c.json is not JSON in UTF-8"),
        ("c.json", '{"a": true, "b": {}, "c": null, "d": "x"}', "c.json: a, b, c must be text"),
        ("c.toml", 'a = "topsecret', "c.toml is not TOML (at end of document)"),
        ("c.toml", b"a = '\xff'", "c.toml is not TOML (in UTF-8)"),
        ("c.json", "x" * 65_537, "c.json is longer than 65536 bytes: that is no credentials file"),
    ],
)
def test_a_file_that_holds_no_credentials_is_refused(
    toko: Operator, name: str, content: str | bytes, message: str
) -> None:
    path = toko.file(name, content)

    assert toko.refused(*ADD, path) == f"lumbung: {Path(path).parent}/{message}\n"


def test_a_file_that_is_not_there_is_refused(toko: Operator) -> None:
    assert toko.refused(*ADD, "/nowhere/c.json") == "lumbung: /nowhere/c.json: No such file or directory\n"


def test_credentials_that_cannot_be_right_are_refused_before_anything_is_written(toko: Operator) -> None:
    before = toko.contents()

    result = toko(*ADD, toko.credentials(username="", base_url="https://evil.example"))

    assert result.exit == 78
    assert result.out == ""
    headline, *problems = result.err.splitlines()
    assert headline == "lumbung: These credentials of Blibli cannot be right"
    assert [line.split(":")[0] for line in problems] == ["  username", "  base_url"]
    assert "seller-key" not in result.err
    assert toko.contents() == before


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("nope", "There is no channel 'nope'; there are: "),
        ("elvn", "Elevenia (elvn) has no connector in this version; there are: "),
    ],
)
def test_a_channel_without_connector_is_refused(toko: Operator, code: str, message: str) -> None:
    words = ("store", "add", "--channel", code, "--name", "Main", "--credentials", toko.credentials())

    said = toko.refused(*words)

    assert said.startswith(f"lumbung: {message}")
    assert "blib (Blibli)" in said


@pytest.mark.parametrize(
    ("warehouse", "message"),
    [
        ("medan", "There is no warehouse 'medan'; there are 'default'"),
        ("medan=L1", "There is no warehouse 'medan'; there are 'default'"),
        ("default=", "--warehouse default=: no location after the ="),
        ("default=L1", "Blibli knows no locations: write --warehouse default alone"),
    ],
)
def test_a_warehouse_that_cannot_serve_is_refused(toko: Operator, warehouse: str, message: str) -> None:
    assert toko.refused(*ADD, toko.credentials(), "--warehouse", warehouse) == f"lumbung: {message}\n"


def test_a_warehouse_or_a_store_named_twice_is_refused(toko: Operator) -> None:
    twice = toko.refused(*ADD, toko.credentials(), "--warehouse", "default", "--warehouse", "default")
    assert twice == "lumbung: Warehouse 'default' is named twice\n"

    toko.done(*ADD, toko.credentials())
    assert toko.refused(*ADD, toko.credentials()) == "lumbung: There is a store 'Main' already\n"


def test_modes(shop: Operator) -> None:
    assert shop.done("store", "live", "Main") == "Store 'Main' is live\n"
    assert mode(shop) == ("live", None)
    assert shop.done("store", "pause", "1", "--reason", "Stocktaking") == "Store 'Main' is paused\n"
    assert mode(shop) == ("paused", "Stocktaking")
    assert shop.done("store", "resume", "Main") == "Store 'Main' is live again\n"
    assert mode(shop) == ("live", None)
    observed = "Store 'Main' is observed: nothing is written to the marketplace\n"
    assert shop.done("store", "observe", "Main") == observed
    assert mode(shop) == ("observe", None)
    assert shop.done("store", "pause", "Main") == "Store 'Main' is paused\n"
    assert mode(shop) == ("paused", "Paused by an operator")
    assert shop.done("store", "resume", "Main") == "Store 'Main' is observed again\n"
    assert shop.audit()[-6:] == [
        ("store.live", "store:1", {"before": "observe"}),
        ("store.pause", "store:1", {"before": "live", "reason": "Stocktaking"}),
        ("store.resume", "store:1", {"after": "live"}),
        ("store.observe", "store:1", {"before": "live"}),
        ("store.pause", "store:1", {"before": "observe", "reason": "Paused by an operator"}),
        ("store.resume", "store:1", {"after": "observe"}),
    ]


def test_going_live_says_why_the_store_had_been_paused(shop: Operator) -> None:
    shop.done("store", "pause", "Main", "--reason", "Blibli refuses the key")

    assert shop.done("store", "live", "Main") == "Store 'Main' is live; it was paused: Blibli refuses the key\n"
    assert shop.done("store", "live", "Main") == "Store 'Main' is live\n"


def test_credentials_are_replaced_and_whoever_sends_for_the_store_must_open_it_anew(shop: Operator) -> None:
    [before] = shop.rows("SELECT epoch FROM store_lease")

    said = shop("store", "credentials", "Main", "--credentials", shop.credentials(api_seller_key="new-key-5512"))

    assert (said.exit, said.out, said.err) == (0, "Store 'Main' has new credentials\n", "")
    [row] = shop.rows("SELECT credentials, account FROM store")
    opened = json.loads(shop.keyring().decrypt(row["credentials"], purpose_of_store(1)))
    assert opened == CREDENTIALS | {"api_seller_key": "new-key-5512"}
    assert row["account"] == "TOQ-1"
    assert shop.rows("SELECT epoch FROM store_lease") == [{"epoch": before["epoch"] + 1}]
    assert shop.audit()[-1] == ("store.credentials", "store:1", {})
    assert "new-key-5512" not in repr(shop.contents())


def test_new_credentials_leave_a_pause_and_say_so(shop: Operator) -> None:
    shop.done("store", "pause", "Main", "--reason", "Blibli refuses the key")

    said = shop("store", "credentials", "1", "--credentials", shop.credentials(store_code="TOQ-2"))

    assert said.err == "It is still paused (Blibli refuses the key): `lumbung store resume 1`\n"
    assert mode(shop) == ("paused", "Blibli refuses the key")
    assert shop.rows("SELECT account FROM store") == [{"account": "TOQ-2"}]


def test_new_credentials_that_cannot_be_right_change_nothing(shop: Operator) -> None:
    before = shop.contents()

    result = shop("store", "credentials", "Main", "--credentials", shop.credentials(username=""))

    assert (result.exit, result.out) == (78, "")
    assert result.err.startswith("lumbung: These credentials of Blibli cannot be right\n  username: is missing")
    assert shop.contents() == before


def test_new_credentials_of_another_stores_account_are_refused(shop: Operator) -> None:
    shop.done(
        "store", "add", "--channel", "blib", "--name", "Two", "--credentials", shop.credentials(store_code="TOQ-2")
    )

    refused = shop.refused("store", "credentials", "Main", "--credentials", shop.credentials(store_code="TOQ-2"))

    assert refused.startswith("lumbung: Store 'Two' is the account TOQ-2 already")


def test_resuming_needs_a_pause(shop: Operator) -> None:
    assert shop.refused("store", "resume", "Main") == "lumbung: Store 'Main' is not paused\n"


@pytest.mark.parametrize(
    "words",
    [
        ("live", "Other"),
        ("observe", "Other"),
        ("pause", "Other"),
        ("resume", "Other"),
        ("remove", "Other", "--yes"),
        ("link", "Other", "--warehouse", "default"),
        ("unlink", "Other", "--warehouse", "default"),
        ("credentials", "Other", "--credentials", "CREDENTIALS"),
    ],
)
def test_an_unknown_store_is_named(shop: Operator, words: tuple[str, ...]) -> None:
    unknown = "lumbung: There is no store 'Other'; `lumbung store list` shows them\n"
    words = tuple(shop.credentials() if word == "CREDENTIALS" else word for word in words)
    assert shop.refused("store", *words) == unknown


def test_linking_and_unlinking_recompute_what_listings_show(shop: Operator) -> None:
    shop.done("warehouse", "add", "bandung")
    shop.done("listing", "import", shop.file("l.csv", "sku,store,remote_variant\nA,Main,TOQ-1-1-1\n"))
    shop.update("A", 10, sync=True)
    shop.update("A", 4, sync=True, warehouse="bandung")
    assert shop.work(World.due) == {"TOQ-1-1-1": 10}

    assert shop.done("store", "link", "Main", "--warehouse", "bandung") == "Warehouse 'bandung' serves store 'Main'\n"
    assert shop.work(World.due) == {"TOQ-1-1-1": 14}
    assert shop.json("store", "list")[0]["warehouses"] == {"default": None, "bandung": None}

    unlinked = shop.done("store", "unlink", "Main", "--warehouse", "default")
    assert unlinked == "Warehouse 'default' serves store 'Main' no longer\n"
    assert shop.work(World.due) == {"TOQ-1-1-1": 4}
    assert shop.rows("SELECT * FROM store_warehouse WHERE settled_at IS NULL") == []
    assert shop.audit()[-2:] == [
        ("store.link", "store:1", {"warehouse": "bandung", "location": None}),
        ("store.unlink", "store:1", {"warehouse": "default"}),
    ]


def test_a_link_that_cannot_be_is_refused(shop: Operator) -> None:
    shop.done("warehouse", "add", "bandung")

    away = "lumbung: Warehouse 'bandung' does not serve store 'Main'\n"
    assert shop.refused("store", "unlink", "Main", "--warehouse", "bandung") == away
    elsewhere = "lumbung: Warehouse 'default' does not serve store 'Main' at 'L1'\n"
    assert shop.refused("store", "unlink", "Main", "--warehouse", "default=L1") == elsewhere
    unknowing = "lumbung: Blibli knows no locations: write --warehouse bandung alone\n"
    assert shop.refused("store", "link", "Main", "--warehouse", "bandung=L1") == unknowing


def test_unlinking_again_finishes_what_a_crash_left(shop: Operator) -> None:
    shop.done("listing", "import", shop.file("l.csv", "sku,store,remote_variant\nA,Main,TOQ-1-1-1\n"))
    shop.update("A", 10, sync=True)

    async def crash(world: World) -> None:
        async with world.pool.transaction() as connection:
            await stores.unlink(connection, tenant_id=1, store_id=1, warehouse_id=0)

    shop.work(crash)
    assert shop.work(World.due) == {"TOQ-1-1-1": 10}

    shop.done("store", "unlink", "Main", "--warehouse", "default")

    assert shop.work(World.due) == {"TOQ-1-1-1": None}
    assert shop.rows("SELECT * FROM store_warehouse WHERE settled_at IS NULL") == []


def test_a_removed_store_ends_its_listings_and_items_and_frees_its_name(shop: Operator) -> None:
    shop.done("listing", "import", shop.file("l.csv", "sku,store,remote_variant\nA,Main,TOQ-1-1-1\n"))
    shop.update("A", 10, sync=True)

    assert shop.done("store", "remove", "Main", "--yes") == "Store 'Main' was removed\n"

    assert shop.json("store", "list") == []
    assert shop.json("listing", "list") == []
    [record] = shop.work(World.history)
    assert [(item.success, item.message) for item in record.items] == [(False, "Store 'Main' was removed")]
    assert shop.audit()[-1] == ("store.remove", "store:1", {"name": "Main"})
    assert shop.done(*ADD, shop.credentials()).startswith("Store 'Main' added (id 2,")


def test_a_removal_is_confirmed(shop: Operator) -> None:
    refused = shop.refused("store", "remove", "Main")
    assert refused == "lumbung: Removing a store cannot be undone: say --yes\n"
