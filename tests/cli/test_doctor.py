from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lumbung.channels.base import (
    Accepted,
    Conflict,
    Deferred,
    Floor,
    InDoubt,
    Misconfigured,
    Outcome,
    Rejected,
    Submitted,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.blibli.channel import BlibliSession
from lumbung.cli.doctor import check_clock, check_schema, check_settings, judge
from lumbung.db import schema
from lumbung.settings import Settings

from .conftest import Operator


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Outcome]:
    """What every store's check comes to."""
    outcome: dict[str, Outcome] = {"check": Accepted()}

    async def check(self: BlibliSession) -> Outcome:
        return outcome["check"]

    monkeypatch.setattr(BlibliSession, "check", check)
    return outcome


def findings(operator: Operator, exit_code: int) -> dict[str, tuple[bool, str, str]]:
    """(ok, message, advice) by check."""
    import json

    result = operator("doctor", "--json")
    assert (result.exit, result.err) == (exit_code, "")
    return {f["check"]: (f["ok"], f["message"], f["advice"]) for f in json.loads(result.out)}


def wrong(operator: Operator) -> dict[str, tuple[str, str]]:
    return {check: (said, advice) for check, (ok, said, advice) in findings(operator, 1).items() if not ok}


def test_a_healthy_installation(shop: Operator) -> None:
    shop.done("partner", "add")

    found = findings(shop, 0)

    newest = schema.newest_version()
    assert list(found) == [
        "settings",
        "key file",
        "database",
        "clock",
        "schema",
        "partitions",
        "workers",
        "store Main (1)",
    ]
    assert all(ok and not advice for ok, _, advice in found.values())
    assert found["settings"][1] == f"data in {shop.folder}"
    assert found["key file"][1] == str(shop.folder / "keys")
    assert found["database"][1].startswith("PostgreSQL 1")
    assert found["schema"][1] == f"version {newest}, this Lumbung has {newest}"
    assert found["partitions"][1] == "there for the next 7 days"
    assert found["workers"][1] == "0 running, 0 listings due, 0 waiting"
    assert found["store Main (1)"][1] == "observe, reachable"
    said = shop.done("doctor").splitlines()
    assert said[-1] == "ok    store Main (1): observe, reachable"


def test_live_stores_without_a_worker(shop: Operator) -> None:
    shop.done("store", "live", "Main")

    advice = "nothing is delivered: start `lumbung serve`"
    assert wrong(shop) == {"workers": ("0 running, 0 listings due, 0 waiting", advice)}


def test_a_store_that_is_not_let_in(shop: Operator, answers: dict[str, Outcome]) -> None:
    answers["check"] = Unauthorized("Key expired", refreshable=False)

    advice = "get new credentials from the marketplace, then `lumbung store credentials`"
    assert wrong(shop) == {"store Main (1)": ("observe, not let in: Key expired", advice)}
    result = shop("doctor")
    assert result.exit == 1
    lines = ["WRONG store Main (1): observe, not let in: Key expired", f"      -> {advice}"]
    assert result.out.splitlines()[-2:] == lines


def test_a_key_file_that_is_gone(shop: Operator) -> None:
    (shop.folder / "keys").unlink()

    said, advice = wrong(shop)["key file"]
    assert said == f"The key file {shop.folder}/keys cannot be used: No such file or directory"
    assert advice == (
        "put the installation's key file back; if it is lost, `lumbung key new` makes another; on a new installation"
        " any other command makes one"
    )
    assert not (shop.folder / "keys").exists()


def test_secrets_that_the_key_file_does_not_open(shop: Operator) -> None:
    shop.done("partner", "add", "--id", "B98KL87")
    (shop.folder / "keys").unlink()
    shop.keyring()

    found = wrong(shop)

    assert list(found) == ["partner B98KL87", "store Main (1)"]
    assert "is encrypted with key" in found["partner B98KL87"][0]
    assert found["partner B98KL87"][1].endswith("or run `lumbung partner rotate B98KL87`")
    assert found["store Main (1)"][1] == "put the key back into the key file, or use `lumbung store credentials 1`"


def test_a_change_of_warehouses_that_was_not_finished(shop: Operator) -> None:
    shop.rows("UPDATE store_warehouse SET settled_at = NULL, created_at = now() - interval '2 minutes'")

    result = shop("doctor")

    assert result.exit == 1
    assert "WRONG store Main (1): a change of its warehouses was not finished\n" in result.out
    assert "-> run the last `lumbung store link` or `lumbung store unlink` of this store again\n" in result.out
    shop.done("store", "link", "Main", "--warehouse", "default")
    assert all(ok for ok, _, _ in findings(shop, 0).values())


def test_partitions_that_are_missing(shop: Operator) -> None:
    [row] = shop.rows("SELECT to_char(date_trunc('week', now() AT TIME ZONE 'UTC'), '\"call_\"YYYY_MM_DD') AS name")
    shop.rows(f'DROP TABLE "{row["name"]}"')

    advice = "start `lumbung serve`, or run any other command: each makes them"
    assert wrong(shop) == {"partitions": (f"missing for the next 7 days: {row['name']}", advice)}
    shop.done("tenant", "list")
    findings(shop, 0)


def test_a_store_of_a_channel_that_this_version_does_not_know(shop: Operator) -> None:
    shop.work(lambda world: world.store("Old", "elvn"))

    said, advice = wrong(shop)["store Old (2)"]
    assert said == "channel elvn has no connector in this version"
    assert advice == "install a version that has one, or `lumbung store remove 2`"


def test_a_database_that_is_away(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.keyring()
    monkeypatch.setenv("LUMBUNG_DATABASE_URL", "postgresql://127.0.0.1:1/none")

    found = wrong(operator)

    assert list(found) == ["database"]
    assert found["database"][0].startswith("The database cannot be reached: ")
    assert found["database"][1] == "start PostgreSQL, or correct LUMBUNG_DATABASE_URL or LUMBUNG_DATA_DIR"


def test_an_empty_database(operator: Operator, empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.keyring()
    monkeypatch.setenv("LUMBUNG_DATABASE_URL", empty_database_url)

    said = f"version 0, this Lumbung has {schema.newest_version()}"
    advice = "start `lumbung serve`, or run any other command: each brings it up to date"
    assert wrong(operator) == {"schema": (said, advice)}


def test_a_setting_that_is_wrong(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMBUNG_PORT", "eighty")

    said = "LUMBUNG_PORT must be a whole number, not 'eighty'"
    assert wrong(operator) == {"settings": (said, "mend this environment variable")}


def test_leases_that_are_renewed_too_late() -> None:
    finding = check_settings(Settings(lease_seconds=100, lease_renew_seconds=50))

    assert finding.message == "leases of 100 s are renewed every 50 s"
    assert finding.advice == "set LUMBUNG_LEASE_RENEW_SECONDS to less than 50"


def test_a_lease_lives_for_as_long_as_the_longest_calls_need_whatever_the_setting_says() -> None:
    assert check_settings(Settings(lease_seconds=10, lease_renew_seconds=5)).ok  # 2.2 times 20 s
    assert not check_settings(Settings(lease_seconds=10, lease_renew_seconds=22)).ok


def test_a_lease_need_not_outlast_calls_that_the_installation_does_not_allow() -> None:
    finding = check_settings(Settings(lease_seconds=2, lease_renew_seconds=1, call_timeout_seconds_max=0.9))
    assert finding.message == "leases of 2 s are renewed every 1 s"
    assert check_settings(Settings(lease_seconds=2, lease_renew_seconds=0.5, call_timeout_seconds_max=0.9)).ok


@pytest.mark.parametrize(
    ("seconds", "ok", "message"),
    [
        (0.5, True, "0.5 s behind the database's"),
        (-4.0, True, "4.0 s ahead of the database's"),
        (6.0, False, "6.0 s behind the database's"),
        (-6.0, False, "6.0 s ahead of the database's"),
    ],
)
def test_clocks_that_differ(seconds: float, ok: bool, message: str) -> None:
    before = datetime(2026, 1, 5, tzinfo=UTC)
    after = before + timedelta(seconds=2)

    finding = check_clock(before, before + timedelta(seconds=1 + seconds), after)

    assert (finding.ok, finding.message) == (ok, message)


def test_a_schema_of_a_newer_version() -> None:
    assert check_schema(3, 2).advice == "install the version of Lumbung that made it, or a newer one"


@pytest.mark.parametrize(
    ("outcome", "message", "ok"),
    [
        (Accepted(), "reachable", True),
        (Throttled(1.0, message="Slow down"), "reachable, busy: Slow down", True),
        (Unavailable("refused"), "no answer: refused", False),
        (InDoubt("timeout"), "no answer: timeout", False),
        (Unauthorized("no", refreshable=False), "not let in: no", False),
        (
            Unauthorized("old", refreshable=True),
            "reachable, its access token has expired: it is renewed before the next push",
            True,
        ),
        (Misconfigured("no scope"), "refused: no scope", False),
        (Rejected("banned"), "refused: banned", False),
        (Deferred(None, "holiday"), "refused: holiday", False),
        (Floor(1, "reserved"), "refused: reserved", False),
        (Submitted("1", 1.0), "an answer that makes no sense", False),
        (Conflict(1), "an answer that makes no sense", False),
    ],
)
def test_every_outcome_is_judged(outcome: Any, message: str, ok: bool) -> None:
    said, advice = judge(outcome)

    assert (said, advice == "") == (message, ok)
