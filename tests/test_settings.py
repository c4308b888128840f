"""Settings: read from the environment, each with a meaning, and the reference page tells the truth."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from lumbung.cli.settings import reference_page
from lumbung.errors import ConfigurationError
from lumbung.settings import Settings, help_of, load

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"


def test_the_reference_page_is_what_the_command_prints() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference_page()


def test_every_setting_has_a_meaning() -> None:
    assert [f.name for f in fields(Settings) if len(help_of(f.name)) < 10] == []


def test_a_setting_is_read_from_its_variable_and_an_override_wins() -> None:
    assert load({"LUMBUNG_PORT": "9000", "LUMBUNG_DATA_DIR": "/somewhere"}).port == 9000
    assert load({"LUMBUNG_PORT": "9000"}, port=9001).port == 9001
    assert load({"LUMBUNG_PORT": "9000"}, port=None).port == 9000
    assert load({"LUMBUNG_DATA_DIR": "/somewhere"}).key_path == Path("/somewhere/keys")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("many", "LUMBUNG_BODY_BYTES_MAX must be a whole number, not 'many'"),
        ("1.5", "LUMBUNG_BODY_BYTES_MAX must be a whole number, not '1.5'"),
        ("-1", "LUMBUNG_BODY_BYTES_MAX must be 0 or more, not '-1'"),
    ],
)
def test_a_wrong_value_is_refused_naming_the_variable(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load({"LUMBUNG_BODY_BYTES_MAX": text})


@pytest.mark.parametrize(
    "environ",
    [
        {"LUMBUNG_CONNECTIONS_MAX": "100", "LUMBUNG_ACCEPT_QUEUE_MAX": "100"},
        {"LUMBUNG_CONNECTIONS_MAX": "100"},
        {"LUMBUNG_ACCEPT_QUEUE_MAX": "10000"},
    ],
)
def test_a_queue_that_takes_every_connection_is_refused_naming_both_variables(environ: dict[str, str]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^LUMBUNG_ACCEPT_QUEUE_MAX \(\d+\) must be below LUMBUNG_CONNECTIONS_MAX \(\d+\)"
    ):
        load(environ)
    assert load(environ | {"LUMBUNG_ACCEPT_QUEUE_MAX": "99"}).accept_queue_max == 99


def test_a_limit_of_bodies_below_that_of_one_is_refused() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"^LUMBUNG_BODIES_BYTES_MAX \(9\) must be at least LUMBUNG_BODY_BYTES_MAX \(\d+\): a body of that length",
    ):
        load({"LUMBUNG_BODIES_BYTES_MAX": "9"})


def test_a_misspelt_variable_is_refused_naming_the_closest() -> None:
    with pytest.raises(ConfigurationError, match=r"^LUMBUNG_PROT is not a setting; the closest one is LUMBUNG_PORT$"):
        load({"LUMBUNG_PROT": "9000"})
    with pytest.raises(ConfigurationError, match=r"^LUMBUNG_port is not a setting; the closest one is LUMBUNG_PORT$"):
        load({"LUMBUNG_port": "9000"})


def test_variables_of_tests_and_of_others_are_not_looked_at() -> None:
    assert load({"LUMBUNG_TEST_SERVER_URL": "x", "LUMBUNGS": "y", "PORT": "z"}) == Settings()


@pytest.mark.parametrize("text", ["nan", "inf", "soon"])
def test_a_time_must_be_a_finite_number(text: str) -> None:
    with pytest.raises(ConfigurationError, match="LUMBUNG_POLL_SECONDS must be"):
        load({"LUMBUNG_POLL_SECONDS": text})


def test_calls_that_may_take_no_time_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^LUMBUNG_CALL_TIMEOUT_SECONDS_MAX must be above 0: "):
        load({"LUMBUNG_CALL_TIMEOUT_SECONDS_MAX": "0"})
