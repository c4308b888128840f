from __future__ import annotations

import json
import logging
import runpy
import socket
import sys
from pathlib import Path

import pytest
import structlog

from lumbung.cli import logs, output
from lumbung.errors import ConfigurationError
from lumbung.sandbox.errors import StartError
from lumbung.sandbox.server import Sandbox
from lumbung.settings import Settings

from .conftest import Operator


def test_a_setting_that_is_wrong_exits_with_78(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMBUNG_PORT", "eighty")

    result = operator("tenant", "list")

    assert (result.exit, result.out) == (78, "")
    assert result.err == "lumbung: LUMBUNG_PORT must be a whole number, not 'eighty'\n"


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("LUMBUNG_LOG_LEVEL", "must be debug, info, warning or error, not 'loud'"),
        ("LUMBUNG_LOG_FORMAT", "must be auto, json or console, not 'loud'"),
    ],
)
def test_a_way_to_log_that_is_unknown(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, variable: str, message: str
) -> None:
    monkeypatch.setenv(variable, "loud")

    result = operator("tenant", "list")

    assert (result.exit, result.err) == (78, f"lumbung: {variable} {message}\n")


def test_a_database_that_is_away_is_one_line(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMBUNG_DATABASE_URL", "postgresql://127.0.0.1:1/none")

    result = operator("tenant", "list")

    assert (result.exit, result.out) == (1, "")
    assert result.err.startswith("lumbung: The database cannot be reached: ")
    assert result.err.count("\n") == 1


def test_an_interrupt_exits_with_130(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lumbung.cli.session.settings_of", interrupted)

    result = operator("tenant", "list")

    assert (result.exit, result.out, result.err) == (130, "", "")


def test_a_bug_is_not_hidden(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("lumbung.cli.session.settings_of", broken)

    with pytest.raises(ZeroDivisionError):
        operator("tenant", "list")


def test_data_dir_is_where_the_key_file_is(operator: Operator) -> None:
    other = operator.folder / "other"

    operator.done("--data-dir", str(other), "tenant", "list")

    assert (other / "keys").exists()
    assert not (operator.folder / "keys").exists()


def test_the_module_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["lumbung", "--help"])

    with pytest.raises(SystemExit) as stop:
        runpy.run_module("lumbung", run_name="__main__")

    assert stop.value.code == 0
    assert "doctor" in capsys.readouterr().out


def test_the_sandbox_listens_where_it_is_told(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def start(*, host: str, port: int, **_: object) -> None:
        asked.append((host, port))
        raise StartError("not now")

    monkeypatch.setattr(Sandbox, "start", start)

    assert operator("sandbox").err == "lumbung: not now\n"
    operator("sandbox", "--host", "::1", "--port", "0")

    assert asked == [("127.0.0.1", 8700), ("::1", 0)]


def test_a_sandbox_that_cannot_start_says_why(operator: Operator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = operator("sandbox", "--port", str(port))

    assert (result.exit, result.out) == (78, "")
    assert result.err.startswith(f"lumbung: cannot listen on 127.0.0.1:{port} (")


def test_nothing_to_list_is_said_on_stderr(operator: Operator) -> None:
    result = operator("tenant", "list")

    assert (result.exit, result.out, result.err) == (0, "", "None.\n")
    assert operator.json("tenant", "list") == []


def test_logs_are_json_without_secrets(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings(log_format="auto", log_level="info"))

    structlog.get_logger().info(
        "made", partner="B98KL87", secret="s1", detail={"api-token": "s2", "n": [{"password": "s3"}]}
    )
    structlog.get_logger().debug("unheard")

    captured = capsys.readouterr()
    line = json.loads(captured.err)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "made",
        "level": "info",
        "partner": "B98KL87",
        "secret": "[redacted]",
        "detail": {"api-token": "[redacted]", "n": [{"password": "[redacted]"}]},
    }
    assert captured.out == ""


def test_warnings_of_other_libraries_are_among_the_logs(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings(log_format="json"))
    logs.configure(Settings(log_format="json"))

    logging.getLogger("asyncio").warning("slow %s", "callback")
    logging.getLogger("asyncio").info("unheard")

    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"]) == ("slow callback", "warning")


def test_logs_for_people(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings(log_format="console"))

    structlog.get_logger().warning("made", partner="B98KL87")

    said = capsys.readouterr().err
    assert "[warning  ] made" in said
    assert "partner=B98KL87" in said


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        logs.configure(Settings(log_level="loud"))


def test_json_knows_what_it_can_say(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TypeError, match="Path has no place in JSON"):
        output.document({"path": Path()})
