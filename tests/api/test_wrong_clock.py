"""A machine whose clock is wrong: what goes by the database's clock stays right, what goes by its own is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from lumbung.api.signature import sign
from lumbung.cli.compose import warn_of_clocks
from lumbung.clock import SystemClock
from lumbung.settings import Settings
from tests.api.raw import HISTORY, check_error
from tests.api.test_overload import served
from tests.world import PARTNER_SECRET, World

HOUR = timedelta(hours=1)


class WrongClock(SystemClock):
    def __init__(self, ahead: timedelta):
        self._ahead = ahead

    def now(self) -> datetime:
        return super().now() + self._ahead


def body_of(**fields: object) -> dict[str, object]:
    stock = {"sku": "sku1", "warehouse": "default", "available_stock": 5, "buffer_stock": 0, "channel_stock": []}
    return {**stock, **fields}


def now_text(ahead: timedelta = timedelta(0)) -> str:
    return (datetime.now(UTC) + ahead).isoformat()


async def merchant(world: World) -> None:
    await world.tenant()
    await world.partner()
    await world.variants("sku1")


@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_records_have_the_databases_time(world: World, ahead: timedelta) -> None:
    await merchant(world)
    async with served(world, Settings(), WrongClock(ahead)) as client:
        assert (await client.update(body_of())).status == 200
        [record] = (await client.history()).json["data"]
    assert await world.value("SELECT now() - $1::timestamptz < interval '10 minutes'", parsed(record["created_at"]))
    assert await world.value("SELECT now() >= $1::timestamptz", parsed(record["created_at"]))


def parsed(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


async def test_a_clock_that_is_behind_refuses_an_as_of_of_now_and_takes_updates_without(world: World) -> None:
    await merchant(world)
    async with served(world, Settings(), WrongClock(-HOUR)) as client:
        refused = check_error(await client.update(body_of(as_of=now_text())), 400)
        assert refused == [("as_of", "must not be in the future")]
        assert await world.value("SELECT count(*) FROM stock_update") == 0
        assert (await client.update(body_of())).status == 200


@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_a_wrong_clock_refuses_signed_timestamps_and_nothing_else(world: World, ahead: timedelta) -> None:
    await merchant(world)
    stamp = str(int(datetime.now(UTC).timestamp() * 1000))
    signed = {"timestamp": stamp, "secret": sign(PARTNER_SECRET, HISTORY, b"", stamp)}
    async with served(world, Settings(), WrongClock(ahead)) as client:
        assert (await client.call("GET", HISTORY, headers=signed)).status == 401
        assert (await client.call("GET", HISTORY)).status == 200
    async with served(world, Settings()) as client:
        assert (await client.call("GET", HISTORY, headers=signed)).status == 200


@pytest.mark.parametrize(("ahead", "warnings"), [(timedelta(0), 0), (HOUR, 1), (-HOUR, 1)])
async def test_clocks_that_differ_are_warned_of_with_what_to_do(world: World, ahead: timedelta, warnings: int) -> None:
    with capture_logs() as logs:
        await warn_of_clocks(world.pool, WrongClock(ahead))
    assert len(logs) == warnings
    for line in logs:
        assert line["event"] == "the clocks of this machine and of the database differ"
        assert line["found"].startswith(("3600.", "3599."))
        assert line["found"].endswith("the database's")
        assert (line["do"], line["log_level"]) == ("synchronise the clocks of both machines (NTP)", "warning")
