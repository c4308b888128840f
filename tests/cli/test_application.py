"""Applications: one app key for many stores."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from lumbung.model import purpose_of_application, purpose_of_store

from .conftest import Operator, cells

APP = {"partner_id": "1000001", "partner_key": "partner-key-7731", "base_url": "http://127.0.0.1:9/shpe"}
SHOP = {"shop_id": "2000002"}
ADD = ("app", "add", "--channel", "shpe", "--name", "Main app", "--credentials")


def app_file(operator: Operator, **changes: str) -> str:
    return operator.file("app.json", json.dumps(APP | changes))


def shop_file(operator: Operator, **changes: str) -> str:
    return operator.file("shop.json", json.dumps(SHOP | changes))


def store(operator: Operator, name: str = "Toko", *more: str, **changes: str) -> tuple[str, ...]:
    return ("store", "add", "--channel", "shpe", "--name", name, "--credentials", shop_file(operator, **changes), *more)


@pytest.fixture
def toko(operator: Operator) -> Operator:
    operator.done("tenant", "add", "Toko")
    return operator


@pytest.fixture
def app(toko: Operator) -> Operator:
    toko.done(*ADD, app_file(toko))
    return toko


def sealed(operator: Operator) -> Mapping[str, str]:
    [row] = operator.rows("SELECT credentials FROM channel_app")
    values: dict[str, str] = json.loads(operator.keyring().decrypt(row["credentials"], purpose_of_application(1)))
    return values


def test_an_application_is_added_with_the_channels_own_limit(toko: Operator) -> None:
    said = toko.done(*ADD, app_file(toko))

    assert said == "Application 'Main app' added (id 1, Shopee, 10 calls/s for all its stores)\n"
    [row] = toko.json("app", "list")
    assert row.pop("created_at").endswith("Z")
    assert row == {
        "id": 1,
        "tenant_id": 1,
        "tenant": "Toko",
        "channel": "shpe",
        "name": "Main app",
        "calls_per_second": 10.0,
        "burst": 10,
        "blocked_until": None,
        "stores": 0,
    }
    detail = {"name": "Main app", "channel": "shpe", "calls_per_second": 10.0, "burst": 10}
    assert toko.audit()[-1] == ("app.add", "app:1", detail)


def test_its_key_is_encrypted_once_and_shown_nowhere(app: Operator) -> None:
    for name, shop in (("One", "1"), ("Two", "2"), ("Three", "3")):
        app.done(*store(app, name, shop_id=shop))

    assert sealed(app) == APP
    for row in app.rows("SELECT id, credentials FROM store"):
        own = json.loads(app.keyring().decrypt(row["credentials"], purpose_of_store(row["id"])))
        assert own.keys() == {"shop_id"}
    everything = repr((app.contents(), app.rows("SELECT * FROM channel_app"), app("app", "list").out))
    assert "partner-key-7731" not in everything
    assert b"partner-key-7731".hex() not in everything
    assert [row["stores"] for row in app.json("app", "list")] == [3]


def test_a_store_uses_the_only_application_or_the_one_that_is_named(app: Operator) -> None:
    app.done(*store(app))
    app.done(*ADD[:-2], "Other app", "--credentials", app_file(app, partner_id="7"))

    which = "There are 2 applications of shpe; say which with --app: 'Main app (shpe, id 1)', 'Other app (shpe, id 2)'"
    assert app.refused(*store(app, "Second", shop_id="3")) == f"lumbung: {which}\n"
    app.done(*store(app, "Second", "--app", "Other app", shop_id="3"))
    assert [(row["name"], row["application"]) for row in app.json("store", "list")] == [
        ("Toko", "Main app"),
        ("Second", "Other app"),
    ]


def test_without_an_application_the_command_says_how_to_make_one(toko: Operator) -> None:
    need = "There is no application of shpe yet: make one with `lumbung app add --channel shpe`"
    assert toko.refused(*store(toko)) == f"lumbung: {need}\n"


def test_an_application_of_the_installation_is_for_every_tenant(toko: Operator) -> None:
    toko.done("tenant", "add", "Other")
    toko.done(*ADD, app_file(toko), "--shared")

    for tenant, shop in (("Toko", "1"), ("Other", "2")):
        toko.done(*store(toko, f"Store {shop}", "--tenant", tenant, shop_id=shop))

    assert [(row["tenant"], row["stores"]) for row in toko.json("app", "list")] == [("(all)", 2)]
    added = toko.rows("SELECT tenant_id FROM audit WHERE action = 'app.add' ORDER BY 1")
    assert [row["tenant_id"] for row in added] == [1, 2]


def test_another_tenants_application_cannot_be_used(app: Operator) -> None:
    app.done("tenant", "add", "Other")

    need = "There is no application of shpe yet: make one with `lumbung app add --channel shpe`"
    assert app.refused(*store(app, "Theirs", "--tenant", "Other")) == f"lumbung: {need}\n"
    none = "There is no application 'Main app'; there are none: make one with `lumbung app add`"
    assert app.refused(*store(app, "Theirs", "--tenant", "Other", "--app", "Main app")) == f"lumbung: {none}\n"


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"partner_id": "x"}, "partner_id", ""),
        ({"partner_key": ""}, "partner_key", "is missing: "),
        ({"shop_id": "1"}, "shop_id", "belongs to a store, not to the application: see `lumbung store add`"),
        ({"base_url": "https://evil.example"}, "base_url", "must be https on "),
        ({"nonsense": "1"}, "nonsense", "is not a field of Shopee"),
    ],
)
def test_an_application_that_cannot_be_right_is_refused_by_field(
    toko: Operator, changes: dict[str, str], field: str, message: str
) -> None:
    result = toko(*ADD, app_file(toko, **changes))

    assert result.exit == 78
    headline, *problems = result.err.splitlines()
    assert headline == "lumbung: These credentials of Shopee cannot be right"
    assert [line.split(":")[0].strip() for line in problems] == [field]
    assert message in problems[0]
    assert toko.rows("SELECT 1 FROM channel_app") == []
    assert "partner-key" not in result.err


def test_a_stores_file_holds_nothing_of_the_application(app: Operator) -> None:
    result = app(*store(app, partner_key="another-key-000"))

    assert result.exit == 78
    assert "partner_key: belongs to the application, not to the store: see `lumbung app add`" in result.err
    assert app.rows("SELECT 1 FROM store") == []


def test_a_channel_without_applications_takes_none(toko: Operator) -> None:
    words = ("app", "add", "--channel", "blib", "--name", "A", "--credentials", app_file(toko))
    said = "Blibli has no applications: its stores bring all their credentials"
    assert toko.refused(*words) == f"lumbung: {said}\n"
    added = ("store", "add", "--channel", "blib", "--name", "A", "--credentials", toko.credentials(), "--app", "A")
    assert toko.refused(*added) == "lumbung: Blibli has no applications: leave --app out\n"


def test_a_new_key_is_taken_up_by_every_store_of_the_application(app: Operator) -> None:
    app.done(*store(app, "One", shop_id="1"))
    app.done(*store(app, "Two", shop_id="2"))
    app.execute(
        "UPDATE store SET mode = 'paused', pause_reason = 'Wrong sign', mode_before_pause = 'live' WHERE id = 2"
    )
    epochs = [row["epoch"] for row in app.rows("SELECT epoch FROM store_lease ORDER BY store_id")]

    result = app("app", "credentials", "Main app", "--credentials", app_file(app, partner_key="the-new-key-1"))

    assert result.out == "Application 'Main app' has new credentials; 2 stores of it will use them\n"
    assert result.err == "Store 'Two' is still paused (Wrong sign): `lumbung store resume 2`\n"
    assert sealed(app)["partner_key"] == "the-new-key-1"
    after = [row["epoch"] for row in app.rows("SELECT epoch FROM store_lease ORDER BY store_id")]
    assert after == [epoch + 1 for epoch in epochs]
    assert app.audit()[-1] == ("app.credentials", "app:1", {})


def test_a_key_of_another_app_is_refused(app: Operator) -> None:
    said = app.refused("app", "credentials", "1", "--credentials", app_file(app, partner_id="7"))
    assert said == (
        "lumbung: Application 'Main app' is 1000001, this file is of 7: what merchants agreed to is good for one app;"
        " add the other with `lumbung app add`\n"
    )
    assert sealed(app) == APP


def test_an_app_that_is_there_under_another_name_is_refused(app: Operator) -> None:
    """Twice its limit would be twice what the marketplace allows."""
    app.done("tenant", "add", "Other")
    words = ("app", "add", "--channel", "shpe", "--name", "Again", "--credentials", app_file(app), "--tenant", "Other")
    assert app.refused(*words) == (
        "lumbung: Application 'Main app' (id 1, of tenant 'Toko') is the same app: use it, or remove it and add it with"
        " --shared for every tenant\n"
    )


def test_an_application_of_another_channel_is_told(app: Operator) -> None:
    key = {"client_id": "c", "client_secret": "bukalapak-secret", "user_agent": "Hub"}
    file = app.file("bl.json", json.dumps(key))
    app.done("app", "add", "--channel", "bklp", "--name", "BL", "--credentials", file)
    said = "lumbung: Application 'BL' is one of bklp, not of shpe\n"
    assert app.refused(*store(app, "Toko", "--app", "BL")) == said


def test_an_account_of_another_tenant_is_not_added_again(app: Operator) -> None:
    app.done("tenant", "add", "Other")
    app.done("store", "add", "--channel", "blib", "--name", "B", "--credentials", app.credentials(), "--tenant", "Toko")
    said = app.refused(
        "store", "add", "--channel", "blib", "--name", "B", "--credentials", app.credentials(), "--tenant", "Other"
    )
    assert said == (
        "lumbung: Store 'B' of tenant 'Toko' is the account TOQ-1 already: two stores of one account would overwrite"
        " each other\n"
    )


def test_with_several_tenants_commands_that_are_recommended_name_theirs(app: Operator) -> None:
    app.done("tenant", "add", "Other")
    result = app(*store(app, "Toko", "--tenant", "Toko"))
    assert result.err == (
        "The merchant must agree first: `lumbung store authorize 1 --tenant 1 --redirect URL`\n"
        "Nothing is written to the marketplace until `lumbung store live 1 --tenant 1`\n"
    )


@pytest.mark.parametrize("words", [ADD[:-2], ("store", "add", "--channel", "shpe", "--name")])
def test_a_name_of_digits_would_be_taken_for_an_id(app: Operator, words: tuple[str, ...]) -> None:
    said = app.refused(*words, "12", "--credentials", app_file(app))
    assert said == "lumbung: --name must not be digits only: it would be taken for an id\n"


def test_its_limit_is_changed(app: Operator) -> None:
    said = app.done("app", "limit", "1", "--calls-per-second", "2.5", "--burst", "4")

    assert said == "The stores of application 'Main app' send 2.5 calls/s together, 4 at once\n"
    assert app.rows("SELECT calls_per_second, burst FROM budget") == [{"calls_per_second": 2.5, "burst": 4}]
    detail = {"calls_per_second": 2.5, "burst": 4, "before": {"calls_per_second": 10.0, "burst": 10}}
    assert app.audit()[-1] == ("app.limit", "app:1", detail)


def test_an_application_in_use_is_not_removed(app: Operator) -> None:
    app.done(*store(app))
    assert app.refused("app", "remove", "1") == "lumbung: Application 'Main app' is used by 1 store: 'Toko'\n"
    app.done("store", "remove", "Toko", "--yes")
    assert app.done("app", "remove", "1") == "Application 'Main app' was removed\n"
    assert app("app", "list").err == "None.\n"
    app.done(*ADD, app_file(app))


def test_an_application_that_is_there_already_or_is_not_there_is_named(app: Operator) -> None:
    other = app_file(app, partner_id="7")
    assert app.refused(*ADD, other) == "lumbung: There is an application 'Main app' of Shopee already\n"
    said = app.refused("app", "remove", "nope")
    assert said == "lumbung: There is no application 'nope'; there are 'Main app (shpe, id 1)'\n"


def test_the_list_is_a_table(app: Operator) -> None:
    assert cells(app.done("app", "list")) == [
        "ID | TENANT | CHANNEL | NAME | CALLS/S | BURST | STORES",
        "1 | Toko | shpe | Main app | 10.0 | 10 | 0",
    ]
