from __future__ import annotations

import base64
import re
from datetime import timedelta

import pytest

from lumbung.cli.partner import duration_seconds
from lumbung.errors import UsageError
from lumbung.model import purpose_of_partner

from .conftest import Operator

SHOWN = re.compile(r"partner-id: ([A-Z0-9]{7})\nsecret: (\S+)\n")


@pytest.fixture
def toko(operator: Operator) -> Operator:
    operator.done("tenant", "add", "Toko")
    return operator


def add(operator: Operator) -> str:
    """A partner B98KL87 is made; its secret."""
    return operator.done("partner", "add", "--id", "B98KL87").splitlines()[1].removeprefix("secret: ")


def opened(operator: Operator, column: str) -> str | None:
    [row] = operator.rows("SELECT secret, old_secret FROM partner WHERE id = 'B98KL87'")
    blob = row[column]
    return None if blob is None else operator.keyring().decrypt(blob, purpose_of_partner("B98KL87")).decode()


def test_an_id_and_a_secret_are_made_and_shown_once(toko: Operator) -> None:
    result = toko("partner", "add", "--name", "ERP", "--strict")

    match = SHOWN.fullmatch(result.out)
    assert match is not None
    assert result.err == "The secret is shown only now: give it to the partner over a channel that you trust\n"
    assert len(base64.b64decode(match[2], validate=True)) == 32
    [partner] = toko.json("partner", "list")
    assert partner.pop("created_at").endswith("Z")
    assert partner == {
        "id": match[1],
        "tenant_id": 1,
        "tenant": "Toko",
        "name": "ERP",
        "strict": True,
        "disabled_at": None,
        "old_secret_expires_at": None,
    }
    assert toko.audit()[1:] == [("partner.add", f"partner:{match[1]}", {"name": "ERP", "strict": True})]


def test_a_secret_is_nowhere_in_the_database_as_text(toko: Operator) -> None:
    secret = add(toko)

    assert opened(toko, "secret") == secret
    everything = repr(toko.contents())
    assert secret not in everything
    assert base64.b64decode(secret).hex() not in everything


def test_an_id_is_used_once(toko: Operator) -> None:
    add(toko)

    assert toko.refused("partner", "add", "--id", "B98KL87") == "lumbung: There is a partner 'B98KL87' already\n"


@pytest.mark.parametrize("partner_id", ["", "a b", "-x", "ä", "x" * 65])
def test_an_id_that_no_header_could_carry_is_refused(toko: Operator, partner_id: str) -> None:
    rule = "--id must have 1 to 64 letters, digits, dots, hyphens or underscores, a letter or digit first"
    assert toko.refused("partner", "add", f"--id={partner_id}") == f"lumbung: {rule}\n"


def test_a_rotation_keeps_the_old_secret_for_a_week(toko: Operator) -> None:
    old = add(toko)

    result = toko("partner", "rotate", "B98KL87")

    new = result.out.splitlines()[1].removeprefix("secret: ")
    assert new != old
    assert (opened(toko, "secret"), opened(toko, "old_secret")) == (new, old)
    [row] = toko.rows("SELECT old_secret_expires_at - now() AS left FROM partner")
    assert timedelta(days=7, minutes=-5) < row["left"] <= timedelta(days=7)
    assert re.search(r"The old secret works until [-0-9]{10} [:0-9]{8}Z; `lumbung partner rotate B98KL87", result.err)
    assert toko.audit()[2:] == [("partner.rotate", "partner:B98KL87", {"old_expires_seconds": 604800})]


def test_a_rotation_says_how_long_the_old_secret_works(toko: Operator) -> None:
    add(toko)

    toko.done("partner", "rotate", "B98KL87", "--old-expires", "12h")

    [row] = toko.rows("SELECT old_secret_expires_at - now() AS left FROM partner")
    assert timedelta(hours=12, minutes=-5) < row["left"] <= timedelta(hours=12)


def test_a_rotation_while_the_old_secret_still_works_is_refused_until_it_is_finished(toko: Operator) -> None:
    add(toko)
    toko.done("partner", "rotate", "B98KL87")

    assert toko.refused("partner", "rotate", "B98KL87") == (
        "lumbung: The old secret of B98KL87 still works. When the partner uses the new one, end the old one with "
        "`lumbung partner rotate B98KL87 --finish`, then rotate again\n"
    )

    ended = toko.done("partner", "rotate", "B98KL87", "--finish")
    assert ended == "The old secret of B98KL87 no longer works\n"
    assert opened(toko, "old_secret") is None
    assert toko.audit()[-1] == ("partner.rotate.finish", "partner:B98KL87", {})
    toko.done("partner", "rotate", "B98KL87")


def test_a_rotation_goes_on_once_the_old_secret_has_expired(toko: Operator) -> None:
    add(toko)
    toko.done("partner", "rotate", "B98KL87")
    second = opened(toko, "secret")
    toko.rows("UPDATE partner SET old_secret_expires_at = now() - interval '1 second'")

    toko.done("partner", "rotate", "B98KL87")

    assert opened(toko, "old_secret") == second


def test_finishing_needs_something_to_finish(toko: Operator) -> None:
    add(toko)

    nothing = "lumbung: Partner B98KL87 has no old secret to end\n"
    assert toko.refused("partner", "rotate", "B98KL87", "--finish") == nothing
    both = "lumbung: --finish ends the old secret now: leave out --old-expires\n"
    assert toko.refused("partner", "rotate", "B98KL87", "--finish", "--old-expires", "7d") == both


def test_a_partner_is_disabled_and_enabled(toko: Operator) -> None:
    add(toko)

    assert toko.done("partner", "disable", "B98KL87") == "Partner B98KL87 is disabled\n"
    assert toko.json("partner", "list")[0]["disabled_at"].endswith("Z")
    assert toko.done("partner", "enable", "B98KL87") == "Partner B98KL87 is enabled\n"
    assert toko.json("partner", "list")[0]["disabled_at"] is None
    assert [action for action, _, _ in toko.audit()][2:] == ["partner.disable", "partner.enable"]


def test_a_partner_is_traced_for_a_while(toko: Operator) -> None:
    add(toko)

    assert toko.done("partner", "trace", "B98KL87") == "Failed signatures of B98KL87 are logged for 10 minutes\n"
    [row] = toko.rows("SELECT trace_until - now() AS left FROM partner")
    assert timedelta(minutes=5) < row["left"] <= timedelta(minutes=10)
    assert toko.audit()[-1] == ("partner.trace", "partner:B98KL87", {"minutes": 10})

    toko.done("partner", "trace", "B98KL87", "--minutes", "0")
    [row] = toko.rows("SELECT trace_until <= now() AS over FROM partner")
    assert row["over"]


@pytest.mark.parametrize("words", [("rotate",), ("rotate", "--finish"), ("disable",), ("enable",), ("trace",)])
def test_an_unknown_partner_is_named(toko: Operator, words: tuple[str, ...]) -> None:
    verb, *more = words

    unknown = "lumbung: There is no partner 'NOBODY'; `lumbung partner list` shows them\n"
    assert toko.refused("partner", verb, "NOBODY", *more) == unknown


@pytest.mark.parametrize(("text", "seconds"), [("7d", 604800), ("12h", 43200), ("30m", 1800), ("45s", 45)])
def test_durations_have_units(text: str, seconds: int) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "1.5h", "7 d", "366d", "1w", "７d"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError) as error:
        duration_seconds(text)
    assert str(error.value) == f"A duration is a number and a unit, such as 7d, 12h or 30m, up to 365d; not {text!r}"
