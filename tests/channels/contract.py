"""What every channel must do, run against the sandbox's bytes over real HTTP.

A channel's tests subclass `ChannelContract` and fill in the attributes. Nothing here knows a marketplace.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

import msgspec
import pytest

from lumbung.channels.base import (
    Accepted,
    Channel,
    InDoubt,
    Misconfigured,
    Observed,
    Push,
    ReadRow,
    ReadsBack,
    Rejected,
    Row,
    Scope,
    Session,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.catalogue import CATALOGUE
from lumbung.channels.http import Answer, HttpClient
from lumbung.channels.registry import find
from lumbung.clock import SystemClock
from lumbung.errors import BadRequest, ConfigurationError
from lumbung.sandbox.server import Sandbox

from .servers import closed_port


class Shop:
    """The sandbox's control API for one channel, and sessions that talk to it."""

    def __init__(self, url: str, http: HttpClient, suite: ChannelContract):
        self.url = url
        self._http = http
        self._suite = suite

    async def faults(self, **faults: object) -> None:
        await self._control("PUT", f"/faults/{self._suite.channel.manifest.code}", faults)

    async def shown(self) -> dict[str, int]:
        """Quantity by the sandbox's own name of the listing."""
        return {row["remote_variant"]: row["quantity"] for row in await self._control("GET", "/listings")}

    async def writes(self) -> list[int]:
        """The quantities that were applied, in order."""
        return [row["quantity"] for row in await self._control("GET", "/writes?after=0")]

    async def add_store(self) -> None:
        path = f"/stores/{self._suite.channel.manifest.code}/{self._suite.sandbox_store}"
        await self._control("PUT", path, self._suite.sandbox_settings)

    def session(self, *, url: str = "", **changes: str) -> Session:
        suite = self._suite
        credentials = {**suite.credentials, "base_url": f"{url or self.url}{suite.mount}", **changes}
        session = suite.channel.open(credentials, self._http, SystemClock())
        suite.prepare(session)
        return session

    async def _control(self, method: str, path: str, sent: object = None) -> Any:
        body = None if sent is None else msgspec.json.encode(sent)
        got = await self._http.request(method, f"{self.url}/_control{path}", headers={}, body=body, timeout_seconds=5)
        assert isinstance(got, Answer), got
        assert got.status == 200, got.body
        return msgspec.json.decode(got.body)


class ChannelContract:
    channel: ClassVar[Channel]
    mount: ClassVar[str]
    """Where the sandbox has this marketplace, below its address."""
    credentials: ClassVar[Mapping[str, str]]
    """A whole credentials file but for base_url."""
    wrong_credentials: ClassVar[Mapping[str, str]]
    """Changes that make it a stranger's."""
    sandbox_store: ClassVar[str]
    sandbox_settings: ClassVar[Mapping[str, object]]
    listing: ClassVar[str]
    """A listing of the sandbox's store, as people paste it, and as the sandbox names it."""
    unknown_listing: ClassVar[str]
    bad_listings: ClassVar[tuple[str, ...]]
    expected_of_a_listing: ClassVar[str]
    """What the message about a bad one must mention."""

    @pytest.fixture
    async def http(self) -> AsyncIterator[HttpClient]:
        async with HttpClient(SystemClock()) as client:
            yield client

    @pytest.fixture
    async def shop(self, http: HttpClient) -> AsyncIterator[Shop]:
        async with Sandbox.start(host="127.0.0.1", port=0) as sandbox:
            shop = Shop(sandbox.url, http, self)
            await shop.add_store()
            yield shop

    def prepare(self, session: Session) -> None:
        """Whatever a fresh session needs before it can call: a pair of tokens, on some channels."""

    def variant(self, listing: str = "") -> str:
        return self.channel.remote_variant(listing or self.listing)

    async def push(self, session: Session, quantity: int, *, listing: str = "") -> Row:
        """One push; whatever comes of it, there is one row for it and no secret in what is kept."""
        attempt = await session.push([Push(41, self.variant(listing), quantity)])
        assert [row.listing_id for row in attempt.rows] == [41]
        for field in self.channel.manifest.credentials:
            if field.secret and field.name in self.credentials:
                assert self.credentials[field.name] not in repr(attempt)
                assert self.credentials[field.name] not in repr(session)
        for call in attempt.calls:
            assert call.started_at.utcoffset() is not None
            assert call.duration_ms >= 0
        row = attempt.rows[0]
        assert row.answer == "" or msgspec.json.decode(row.answer) is not None
        return row

    # --- Writing ---

    async def test_the_listing_shows_the_quantity_that_was_pushed(self, shop: Shop) -> None:
        assert (await self.push(shop.session(), 7)).outcome == Accepted()
        assert (await self.push(shop.session(), 5)).outcome == Accepted()
        assert (await shop.shown())[self.listing] == 5
        assert await shop.writes() == [7, 5]

    async def test_a_listing_can_be_set_to_zero(self, shop: Shop) -> None:
        await self.push(shop.session(), 3)
        assert (await self.push(shop.session(), 0)).outcome == Accepted()
        assert (await shop.shown())[self.listing] == 0

    async def test_the_same_quantity_twice_is_written_twice(self, shop: Shop) -> None:
        await self.push(shop.session(), 3)
        assert (await self.push(shop.session(), 3)).outcome == Accepted()
        assert await shop.writes() == [3, 3]

    async def test_an_accepted_push_keeps_the_marketplaces_answer(self, shop: Shop) -> None:
        attempt = await shop.session().push([Push(1, self.variant(), 2)])
        (call,) = attempt.calls
        assert call.status == 200
        assert attempt.rows[0].answer != ""
        assert attempt.rows[0].answer in call.response  # all of it, or the listing's part

    async def test_an_unknown_item_is_rejected_while_the_credentials_are_fine(self, shop: Shop) -> None:
        row = await self.push(shop.session(), 3, listing=self.unknown_listing)
        assert isinstance(row.outcome, Rejected)
        assert await shop.writes() == []
        assert await shop.session().check() == Accepted()

    async def test_wrong_credentials_are_no_fault_of_the_listing(self, shop: Shop) -> None:
        session = shop.session(**self.wrong_credentials)
        for outcome in ((await self.push(session, 3)).outcome, await session.check()):
            assert isinstance(outcome, Unauthorized | Misconfigured)
            assert not isinstance(outcome, Misconfigured) or outcome.scope is Scope.STORE
        assert await shop.writes() == []

    async def test_no_more_than_one_batch_is_taken(self, shop: Shop) -> None:
        pushes = [Push(number, self.variant(), 1) for number in range(self.channel.manifest.batch_max + 1)]
        with pytest.raises(ValueError, match="listings in one call"):
            await shop.session().push(pushes)
        assert await shop.writes() == []

    async def test_a_quantity_below_zero_is_not_sent(self, shop: Shop) -> None:
        with pytest.raises(ValueError, match="below 0"):
            await shop.session().push([Push(1, self.variant(), -1)])
        assert await shop.writes() == []

    # --- Trouble ---

    async def test_a_throttle_says_for_how_long(self, shop: Shop) -> None:
        await shop.faults(throttle_rate=1, retry_after_s=17)
        row = await self.push(shop.session(), 3)
        assert isinstance(row.outcome, Throttled)
        assert row.outcome.retry_after_seconds == 17.0
        assert await shop.writes() == []

    async def test_a_throttle_may_say_nothing_of_its_length(self, shop: Shop) -> None:
        await shop.faults(throttle_rate=1)
        row = await self.push(shop.session(), 3)
        assert isinstance(row.outcome, Throttled)
        assert row.outcome.retry_after_seconds is None
        assert await shop.writes() == []

    async def test_a_server_error_is_neither_success_nor_surely_nothing(self, shop: Shop) -> None:
        await shop.faults(error_rate=1)
        for _ in range(3):  # 500, 502, 503
            assert isinstance((await self.push(shop.session(), 3)).outcome, InDoubt)

    async def test_a_server_error_after_applying_leaves_doubt(self, shop: Shop) -> None:
        await shop.faults(apply_then_5xx_rate=1)
        assert isinstance((await self.push(shop.session(), 3)).outcome, InDoubt)
        assert await shop.writes() == [3]

    async def test_a_reset_after_applying_leaves_doubt_and_is_not_sent_again(self, shop: Shop) -> None:
        await self.push(shop.session(), 9)  # so that the connection is a kept one
        await shop.faults(drop_response_rate=1)
        row = await self.push(shop.session(), 3)
        assert isinstance(row.outcome, InDoubt)
        assert row.answer == ""
        assert await shop.writes() == [9, 3]

    async def test_no_answer_in_time_leaves_doubt(self, shop: Shop) -> None:
        await shop.faults(timeout_rate=1, timeout_ms=60_000)
        row = await self.push(shop.session(call_timeout_seconds="0.1"), 3)
        assert isinstance(row.outcome, InDoubt)
        assert await shop.writes() == [3]

    async def test_an_unreadable_answer_leaves_doubt(self, shop: Shop) -> None:
        await shop.faults(garbage_rate=1, seed=1)
        for _ in range(3):  # a page, half of the JSON, nothing
            row = await self.push(shop.session(), 3)
            assert isinstance(row.outcome, InDoubt)
            assert row.answer == ""

    async def test_a_closed_port_means_surely_not_applied(self, shop: Shop) -> None:
        session = shop.session(url=f"http://127.0.0.1:{closed_port()}")
        attempt = await session.push([Push(1, self.variant(), 3)])
        assert isinstance(attempt.rows[0].outcome, Unavailable)
        assert [(call.status, call.response) for call in attempt.calls] == [(0, "")]
        assert isinstance(await session.check(), Unavailable)

    # --- Reading ---

    def reader(self, session: Session) -> ReadsBack:
        if not isinstance(session, ReadsBack):
            pytest.skip("this channel does not read back")
        return session

    async def read(self, session: Session, *, listing: str = "") -> ReadRow:
        """One listing read; whatever comes of it, there is one row for it, one call, and no secret in what is kept."""
        reading = await self.reader(session).read([Push(41, self.variant(listing), 0)])
        assert [row.listing_id for row in reading.rows] == [41]
        assert len(reading.calls) == 1
        for field in self.channel.manifest.credentials:
            if field.secret and field.name in self.credentials:
                assert self.credentials[field.name] not in repr(reading)
        return reading.rows[0]

    async def test_what_is_read_back_is_what_was_written(self, shop: Shop) -> None:
        session = shop.session()
        await self.push(session, 6)
        assert await self.read(session) == ReadRow(41, Observed(6))
        assert await shop.writes() == [6]

    async def test_an_unknown_item_cannot_be_read(self, shop: Shop) -> None:
        row = await self.read(shop.session(), listing=self.unknown_listing)
        assert isinstance(row.seen, Rejected)

    async def test_nothing_to_read_is_no_call(self, shop: Shop) -> None:
        reading = await self.reader(shop.session()).read([])
        assert (reading.rows, reading.calls) == ((), ())

    @pytest.mark.parametrize("faults", [{"error_rate": 1}, {"garbage_rate": 1}, {"drop_response_rate": 1}])
    async def test_reading_during_trouble_leaves_no_doubt(self, shop: Shop, faults: Mapping[str, object]) -> None:
        await shop.faults(**faults)
        row = await self.read(shop.session())
        assert isinstance(row.seen, Unavailable)

    async def test_a_read_that_is_throttled_says_for_how_long(self, shop: Shop) -> None:
        await shop.faults(throttle_rate=1, retry_after_s=17)
        row = await self.read(shop.session())
        assert isinstance(row.seen, Throttled)
        assert row.seen.retry_after_seconds == 17.0

    async def test_a_closed_port_cannot_be_read(self, shop: Shop) -> None:
        row = await self.read(shop.session(url=f"http://127.0.0.1:{closed_port()}"))
        assert isinstance(row.seen, Unavailable)

    async def test_a_stranger_reads_nothing(self, shop: Shop) -> None:
        row = await self.read(shop.session(**self.wrong_credentials))
        assert isinstance(row.seen, Unauthorized | Misconfigured)

    async def test_a_check_writes_nothing(self, shop: Shop) -> None:
        assert await shop.session().check() == Accepted()
        assert await shop.writes() == []

    # --- Ids and the manifest ---

    def test_the_canonical_text_of_a_listing_stays_as_it_is(self) -> None:
        canonical = self.variant()
        assert self.channel.remote_variant(canonical) == canonical
        assert self.channel.remote_variant(f"  {canonical}\n") == canonical
        assert msgspec.json.decode(canonical)
        assert self.channel.batch_key(canonical) == self.channel.batch_key(self.variant())

    def test_a_listing_that_cannot_be_is_refused_with_what_is_expected(self) -> None:
        for text in self.bad_listings:
            with pytest.raises(BadRequest, match=self.expected_of_a_listing) as raised:
                self.channel.remote_variant(text)
            assert [problem.field for problem in raised.value.problems] == ["remote_variant"]

    async def test_a_missing_credential_is_named(self, http: HttpClient) -> None:
        required = [field.name for field in self.channel.manifest.credentials if field.required]
        for missing in required:
            rest = {name: value for name, value in self.credentials.items() if name != missing}
            with pytest.raises(ConfigurationError) as raised:
                self.channel.open(rest, http, SystemClock())
            assert [problem.field for problem in raised.value.problems] == [missing]

    @pytest.mark.parametrize(
        "base_url",
        [
            "http://169.254.169.254/latest",
            "https://10.0.0.5/v2",
            "http://0.0.0.0/",
            "https://example.test/",
            "file:///etc/passwd",
            "ftp://localhost/",
            "http://127.0.0.1@example.test/",
            "http://localhost.example.test/",
            "http://localhost:99999/",
            "http://localhost/?a=b",
            "http://localhost/#a",
            "http://localhost/a b",
            "http://[::1/",
            "//localhost/",
            "v2",
        ],
    )
    async def test_no_address_but_the_marketplaces_own_is_ever_called(self, http: HttpClient, base_url: str) -> None:
        with pytest.raises(ConfigurationError) as raised:
            self.channel.open({**self.credentials, "base_url": base_url}, http, SystemClock())
        assert [problem.field for problem in raised.value.problems] == ["base_url"]

    async def test_the_marketplaces_hosts_are_called_by_https_only(self, http: HttpClient) -> None:
        for host in self.channel.manifest.hosts:
            self.channel.open({**self.credentials, "base_url": f"https://{host}/v2"}, http, SystemClock())
            with pytest.raises(ConfigurationError):
                self.channel.open({**self.credentials, "base_url": f"http://{host}/v2"}, http, SystemClock())

    def test_the_manifest_makes_sense(self) -> None:
        manifest = self.channel.manifest
        assert find(manifest.code) is self.channel
        assert CATALOGUE[manifest.code].name == manifest.name
        assert manifest.hosts
        assert all(host == host.lower() and "/" not in host and ":" not in host for host in manifest.hosts)
        assert manifest.batch_max >= 1
        assert manifest.in_flight_max >= 1
        assert manifest.read_max >= 1
        assert manifest.pacing.calls_per_second > 0
        assert manifest.pacing.burst >= 1
        assert 0 < manifest.call_timeout_seconds <= 60
        assert manifest.quiesce_seconds > manifest.call_timeout_seconds
        names = [field.name for field in manifest.credentials]
        assert len(names) == len(set(names))
        assert {"base_url", "call_timeout_seconds"} <= set(names)
        assert all(field.help for field in manifest.credentials)
