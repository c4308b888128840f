"""What is logged: an exception with where it came from, and never what the frames held."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from lumbung.channels.http import HttpClient
from lumbung.channels.registry import CHANNELS
from lumbung.cli import logs
from lumbung.clock import ManualClock
from lumbung.errors import ConfigurationError
from lumbung.keyring import Keyring
from lumbung.model import purpose_of_store
from lumbung.settings import Settings

CREDENTIALS = {
    "api_client_id": "client-1",
    "api_client_key": "client-key-7731",
    "api_seller_key": "seller-key-9042",
    "store_code": "TOQ-1",  # the field `username` is missing, so the store cannot be opened
}


@pytest.fixture(params=["json", "console"])
def stderr(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is written there by logs configured in each format."""
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    root = logging.getLogger()
    level = root.level
    logs.configure(Settings(log_format=request.param))
    yield stderr
    structlog.reset_defaults()
    root.setLevel(level)
    for handler in [held for held in root.handlers if held.get_name() == "lumbung"]:
        root.removeHandler(handler)


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    async with HttpClient(ManualClock()) as client:
        yield client


def open_store(keyring: Keyring, http: HttpClient) -> None:
    """What a worker does with the credentials that it has leased."""
    sealed = keyring.encrypt(json.dumps(CREDENTIALS).encode(), purpose_of_store(1))
    credentials = json.loads(keyring.decrypt(sealed, purpose_of_store(1)))
    CHANNELS["blib"].open(credentials, http, ManualClock())


def check(written: str) -> None:
    assert "a store cannot be opened" in written
    assert "username" in written  # why
    assert "open_store" in written  # where
    assert [value for value in CREDENTIALS.values() if value in written] == []


async def test_an_exception_is_logged_without_the_credentials_that_its_frames_hold(
    stderr: io.StringIO, keyring: Keyring, http: HttpClient
) -> None:
    try:
        open_store(keyring, http)
    except ConfigurationError as error:
        structlog.get_logger().error("a store cannot be opened", store=1, exc_info=error)
    check(stderr.getvalue())


async def test_the_cause_of_an_exception_is_logged_without_what_its_frames_hold(
    stderr: io.StringIO, keyring: Keyring, http: HttpClient
) -> None:
    try:
        try:
            open_store(keyring, http)
        except ConfigurationError as error:
            raise RuntimeError("outer") from error
    except RuntimeError:
        structlog.get_logger().exception("a store cannot be opened")
    check(stderr.getvalue())


async def test_an_exception_that_another_library_logs_is_without_what_its_frames_hold(
    stderr: io.StringIO, keyring: Keyring, http: HttpClient
) -> None:
    try:
        open_store(keyring, http)
    except ConfigurationError:
        logging.getLogger("asyncio").exception("a store cannot be opened")
    check(stderr.getvalue())


def test_what_stands_under_the_name_of_a_secret_inside_of_a_list_is_not_logged(stderr: io.StringIO) -> None:
    stores = [{"name": "Toko Padi", "token": "token-1"}, ({"api": [{"password": "password-2"}]},)]
    structlog.get_logger().warning("stores", stores=stores, pair=({"credentials": CREDENTIALS},))
    written = stderr.getvalue()
    assert ("Toko Padi" in written, written.count("[redacted]")) == (True, 3)
    assert [value for value in (*CREDENTIALS.values(), "token-1", "password-2") if value in written] == []


def test_what_stands_under_the_name_of_a_secret_is_not_logged(stderr: io.StringIO) -> None:
    structlog.get_logger().warning("credentials", credentials=CREDENTIALS, tokens=["a-token"], store=1)
    assert "[redacted]" in stderr.getvalue()
    assert [value for value in (*CREDENTIALS.values(), "a-token") if value in stderr.getvalue()] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_line_that_finds_no_room_is_lost_and_nothing_else() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        stream = logs.Unfailing(io.TextIOWrapper(full, write_through=True))
        assert stream.write("a line\n") == 7
        stream.flush()
    assert stream.write("after its end\n") == 14
    assert logs.Unfailing(None).write("to nobody\n") == 10
