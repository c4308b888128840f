"""Group commit: one transaction for many, everyone gets their own answer, and nobody waits for a stranger's lock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID, uuid4

import aiohttp
import pytest
from structlog.testing import capture_logs

from lumbung.api.group_commit import GroupCommit
from lumbung.api.metrics import ApiMetrics
from lumbung.clock import SystemClock
from lumbung.db.pool import Pool
from lumbung.db.query import Connection
from lumbung.db.wake import Hints, Waker
from lumbung.errors import CommitUnknown, LockBusy, LumbungError, NotFound, Unavailable
from lumbung.inventory.stock import Receipt
from lumbung.keyring import Keyring
from lumbung.model import Idempotency, Lane, StockUpdate, Submission
from lumbung.settings import Settings
from tests.flow.hub import FAST, Client, running_api, until
from tests.world import PARTNER_ID, RULES, World, stock_update

QUICK = Settings(group_lock_timeout_ms=20, update_lock_timeout_ms=20_000)


class Committing:
    """A group commit over a world's database, and what it counted."""

    def __init__(self, world: World, settings: Settings = QUICK, pool: Pool | None = None):
        pool = pool or world.pool
        self.world = world
        self.metrics = ApiMetrics()
        self.waker = Noting(pool, interval_seconds=0.01)
        self.commits = GroupCommit(pool, RULES, settings, waker=self.waker, metrics=self.metrics, clock=SystemClock())

    def submission(self, update: StockUpdate, tenant_id: int | None = None) -> Submission:
        return Submission(self.world.tenant_id if tenant_id is None else tenant_id, PARTNER_ID, uuid4(), update)

    def submit(self, update: StockUpdate, tenant_id: int | None = None) -> asyncio.Task[Receipt]:
        return asyncio.create_task(self.commits.submit(self.submission(update, tenant_id)))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        run = asyncio.create_task(self.commits.run())
        try:
            yield
        finally:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)

    def counted(self, name: str) -> float:
        value = self.metrics.registry.get_sample_value(f"lumbung_accept_{name}")
        assert value is not None
        return value

    async def splits(self) -> float:
        return self.counted("splits_total")

    async def queued(self) -> float:
        return self.counted("queued")


async def level(world: World, sku: str = "sku1") -> tuple[int, int]:
    """What is available of a SKU, and how many updates it has had."""
    [row] = await world.rows(
        "SELECT coalesce(max(l.available), 0) AS available,"
        " (SELECT count(*) FROM stock_change c WHERE c.tenant_id = v.tenant_id AND c.variant_id = v.id) AS updates"
        " FROM variant v LEFT JOIN stock_level l ON l.tenant_id = v.tenant_id AND l.variant_id = v.id"
        " WHERE v.tenant_id = $1 AND v.sku = $2 GROUP BY v.tenant_id, v.id",
        world.tenant_id,
        sku,
    )
    return row["available"], row["updates"]


async def results(tasks: Sequence[asyncio.Task[Receipt]]) -> list[Receipt | BaseException]:
    async with asyncio.timeout(20):
        return await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def locked(world: World, sku: str = "sku1") -> AsyncIterator[None]:
    """Somebody else holds a variant."""
    async with world.pool.transaction() as connection:
        await connection.execute(
            "SELECT FROM variant WHERE tenant_id = $1 AND sku = $2 FOR UPDATE", world.tenant_id, sku
        )
        yield


async def waiting_for_locks(world: World, count: int) -> None:
    """Wait until so many connections wait for a lock in this database."""

    async def waiting() -> int:
        found: int = await world.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return found

    await until(waiting, lambda found: found == count, 10)


async def set_aside(group: Committing) -> None:
    """Wait until an update waits for a lock by itself."""
    await until(group.splits, lambda splits: splits > 0, 10)
    await waiting_for_locks(group.world, 1)


# Groups


async def test_200_requests_at_once_are_one_transaction_and_each_gets_its_own_code(world: World) -> None:
    await world.tenant()
    skus = [f"sku{n}" for n in range(50)]
    await world.variants(*skus)
    group = Committing(world, replace(QUICK, group_commits_in_flight_max=1))
    submissions = [group.submission(stock_update(skus[n % 50], n)) for n in range(200)]
    async with group.running():
        receipts = await asyncio.gather(*(group.commits.submit(submission) for submission in submissions))
    assert [receipt.transaction_code for receipt in receipts] == [s.transaction_code for s in submissions]
    assert (group.counted("group_updates_count"), group.counted("group_updates_sum")) == (1, 200)
    assert group.counted("splits_total") == 0
    ids = {record.transaction_code: record.id for record in await world.history(1000)}
    assert [ids[s.transaction_code] for s in submissions] == [receipt.update_id for receipt in receipts]
    assert [await level(world, sku) for sku in skus] == [(150 + n, 4) for n in range(50)]


async def test_a_group_is_begun_at_once_when_no_other_is_under_way(world: World) -> None:
    await world.tenant()
    await world.variants("sku1")
    group = Committing(world, replace(QUICK, group_wait_ms=1e9))
    async with group.running():
        for n in range(3):
            [result] = await results([group.submit(stock_update(available=n))])
            assert isinstance(result, Receipt)
    assert group.counted("group_updates_count") == 3


async def test_who_has_given_up_leaves_nothing_to_be_divided(world: World) -> None:
    await world.tenant()
    group = Committing(world, replace(QUICK, group_updates_min=0))
    task = group.submit(stock_update())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert group.commits._take() == []
    assert await group.queued() == 0


async def test_what_waits_is_divided_among_the_groups_that_may_be_under_way(world: World) -> None:
    """Else all who send their next update when the last is answered would wait for one group, and the database for
    them."""
    await world.tenant()
    await world.variants(*(f"sku{n}" for n in range(100)))
    group = Committing(world, replace(QUICK, group_commits_in_flight_max=2, group_updates_min=20))
    for count, groups in ((100, [50, 50]), (30, [20, 10]), (20, [20])):
        tasks = [group.submit(stock_update(f"sku{n}", n)) for n in range(count)]
        await asyncio.sleep(0)  # all of them wait
        taken = []
        while part := group.commits._take():
            taken.append(len(part))
            for waiting in part:
                waiting.give_up()
        assert taken == groups
        assert [type(result) for result in await results(tasks)] == [Unavailable] * count


async def test_200_requests_over_http_share_their_transactions(world: World, keyring: Keyring) -> None:
    await world.tenant()
    await world.partner()
    await world.variants("sku1")
    async with (
        running_api(replace(FAST, partner_cache_seconds=60.0), world.pool, keyring) as (url, context),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as session,
    ):
        client = Client(url, session)
        body = {"sku": "sku1", "warehouse": "default", "buffer_stock": 0, "channel_stock": []}
        answers = await asyncio.gather(*(client.update(body | {"available_stock": n}) for n in range(200)))
        registry = context.metrics.registry
    codes = {answer.json["transaction_code"] for answer in answers}
    assert ({answer.status for answer in answers}, len(codes)) == ({200}, 200)
    assert {str(record.transaction_code) for record in await world.history(1000)} == codes
    assert registry.get_sample_value("lumbung_accept_group_updates_sum") == 200
    transactions = registry.get_sample_value("lumbung_accept_group_updates_count")
    assert transactions is not None
    assert transactions <= 100


async def test_a_group_is_not_larger_than_its_limit(world: World) -> None:
    await world.tenant()
    await world.variants("sku1")
    group = Committing(world, replace(QUICK, group_updates_max=10))
    tasks = [group.submit(stock_update(available=n)) for n in range(25)]
    async with group.running():
        assert all(isinstance(result, Receipt) for result in await results(tasks))
    assert (group.counted("group_updates_count"), group.counted("group_updates_sum")) == (3, 25)


async def test_tenants_are_served_in_turn(world: World) -> None:
    tenants = [await world.tenant(name) for name in ("a", "b", "c")]
    for tenant_id in tenants:
        world.tenant_id = tenant_id
        await world.variants("sku1")
    a, b, c = tenants
    group = Committing(world, replace(QUICK, group_updates_max=2, group_commits_in_flight_max=1))
    order = [a, a, a, a, b, c, b]
    tasks = [group.submit(stock_update(), tenant_id) for tenant_id in order]
    await asyncio.sleep(0)
    async with group.running():
        receipts = [result for result in await results(tasks) if isinstance(result, Receipt)]
    served = sorted(receipts, key=lambda receipt: receipt.update_id)
    assert [receipt.tenant_id for receipt in served] == [a, b, c, a, b, a, a]


async def test_a_commit_wakes_who_listens_to_the_stores_concerned(world: World) -> None:
    await world.small()
    group = Committing(world)
    async with group.running():
        await group.submit(stock_update(bklp=1))
        await group.submit(stock_update(blib=1))
    [state] = (await world.states()).values()
    assert group.waker.woken == [{}, {world.stores["Toko Padi"].id: {state["listing_id"]: Lane.RISING}}]


class Noting(Waker):
    """Notes what it is asked to wake."""

    def __init__(self, pool: Pool, *, interval_seconds: float):
        super().__init__(pool, interval_seconds=interval_seconds)
        self.woken: list[Hints] = []

    def wake(self, hints: Hints) -> None:
        self.woken.append(hints)


# Requests that fail


async def test_a_refused_request_fails_alone_without_splitting_its_group(world: World) -> None:
    await world.tenant()
    await world.variants("sku1")
    group = Committing(world)
    tasks = [group.submit(stock_update(sku, 5)) for sku in ("sku1", "nowhere", "sku1")]
    async with group.running():
        first, refused, last = await results(tasks)
    assert isinstance(first, Receipt)
    assert isinstance(last, Receipt)
    assert isinstance(refused, NotFound)
    assert (group.counted("group_updates_count"), group.counted("splits_total")) == (1, 0)
    assert await level(world) == (5, 2)


async def test_a_request_that_breaks_its_transaction_fails_alone(world: World) -> None:
    other = await world.tenant("other")
    await world.variants("sku1")
    await world.tenant()
    await world.variants("sku1", "sku2")
    group = Committing(world)
    tasks = [
        group.submit(stock_update("sku1", 1), other),
        group.submit(stock_update("sku1", 1)),
        group.submit(stock_update("sku1", 2, blib=2**40)),
        group.submit(stock_update("sku1", 3)),
        group.submit(stock_update("sku2", 4)),
    ]
    with capture_logs() as logs:
        async with group.running():
            answers = await results(tasks)
    assert [type(answer) for answer in answers] == [Receipt, Receipt, LumbungError, Receipt, Receipt]
    assert [line["updates"] for line in logs if line["log_level"] == "error"] == [5, 4, 3, 1]
    assert str(answers[2]) == "An internal error: the update was not accepted"
    assert (await level(world), await level(world, "sku2")) == ((3, 2), (4, 1))
    assert len(await world.history()) == 3
    first, last = answers[1], answers[3]
    assert isinstance(first, Receipt)
    assert isinstance(last, Receipt)
    assert first.update_id < last.update_id


async def test_while_the_database_is_away_everyone_is_told_at_once(world: World) -> None:
    await world.tenant()
    async with Pool("postgresql://lumbung@127.0.0.1:1/lumbung", Settings()) as away:
        group = Committing(world, pool=away)
        tasks = [group.submit(stock_update(available=n)) for n in range(5)]
        async with group.running():
            answers = await results(tasks)
    assert [type(answer) for answer in answers] == [Unavailable] * 5
    assert await world.history() == []


async def test_a_full_queue_refuses_and_takes_again_when_it_is_not_full(world: World) -> None:
    await world.tenant()
    await world.variants("sku1")
    group = Committing(world, replace(QUICK, accept_queue_max=2))
    tasks = [group.submit(stock_update(available=n)) for n in range(3)]
    await asyncio.sleep(0)
    async with group.running():
        first, second, third = await results(tasks)
        assert isinstance(first, Receipt)
        assert isinstance(second, Receipt)
        assert isinstance(third, Unavailable)
        assert third.retry_after_seconds == 1
        await group.submit(stock_update(available=9))
    assert await level(world) == (9, 3)


async def test_what_waits_for_a_lock_counts_as_waiting(world: World) -> None:
    await world.tenant()
    await world.variants("sku1", "sku2")
    group = Committing(world, replace(QUICK, accept_queue_max=2))
    async with group.running():
        async with locked(world):
            blocked = [group.submit(stock_update(available=n)) for n in range(2)]
            await waiting_for_locks(world, 1)
            with pytest.raises(Unavailable, match="Too many updates wait"):
                await group.submit(stock_update("sku2"))
        assert [type(result) for result in await results(blocked)] == [Receipt, Receipt]
    assert (await level(world, "sku2"))[1] == 0


async def test_an_update_that_is_not_committed_in_time_is_answered_503_and_not_begun_any_more(world: World) -> None:
    await world.tenant()
    await world.variants("sku1")
    group = Committing(world, replace(QUICK, accept_timeout_seconds=0.01))
    with pytest.raises(Unavailable, match="may still take effect and may be sent again"):
        await group.submit(stock_update(available=1))
    async with group.running(), asyncio.timeout(5):
        await group.commits.drain()
    assert await world.history() == []


async def test_an_update_whose_client_has_gone_is_not_begun_any_more(world: World) -> None:
    await world.tenant()
    await world.variants("sku1")
    group = Committing(world)
    gone, stays = group.submit(stock_update(available=1)), group.submit(stock_update(available=2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    async with group.running():
        await stays
    assert await level(world) == (2, 1)


# Locks


async def test_a_locked_variant_delays_only_updates_of_its_sku(world: World) -> None:
    other = await world.tenant("other")
    await world.variants("sku1")
    await world.tenant()
    skus = [f"sku{n}" for n in range(1, 21)]
    await world.variants(*skus)
    group = Committing(world, replace(QUICK, group_commits_in_flight_max=1))
    async with group.running():
        async with locked(world, "sku1"):
            blocked = [group.submit(stock_update("sku1", 1))]
            others = [group.submit(stock_update(sku, 7)) for sku in skus[1:]]
            others.append(group.submit(stock_update("sku1", 7), other))
            assert {type(result) for result in await results(others)} == {Receipt}
            for n in range(2, 6):  # later groups meet the same lock
                blocked.append(group.submit(stock_update("sku1", n)))
                assert isinstance((await results([group.submit(stock_update("sku2", n))]))[0], Receipt)
            assert not any(task.done() for task in blocked)
            assert await level(world, "sku1") == (0, 0)
        receipts = [result for result in await results(blocked) if isinstance(result, Receipt)]
    assert len(receipts) == 5
    assert [r.update_id for r in receipts] == sorted(r.update_id for r in receipts)
    assert (await level(world, "sku1"), await level(world, "sku2")) == ((5, 5), (5, 5))


async def test_many_locked_variants_leave_connections_for_the_others(world: World, database_url: str) -> None:
    await world.tenant()
    skus = [f"sku{n}" for n in range(30)]
    await world.variants(*skus)
    settings = replace(QUICK, database_connections_max=6, group_commits_in_flight_max=2)
    async with Pool(database_url, settings) as pool:
        group = Committing(world, settings, pool)
        async with group.running():
            async with world.pool.transaction() as connection:
                await connection.execute("SELECT FROM variant WHERE sku <> 'sku0' FOR UPDATE")
                blocked = [group.submit(stock_update(sku, 1)) for sku in skus[1:]]
                await waiting_for_locks(world, 2)
                for n in range(3):
                    assert isinstance((await results([group.submit(stock_update("sku0", n))]))[0], Receipt)
                assert not any(task.done() for task in blocked)
            assert {type(result) for result in await results(blocked)} == {Receipt}
    assert [await level(world, sku) for sku in skus[1:]] == [(1, 1)] * 29


async def test_a_lock_that_is_never_released_is_answered_503_and_nothing_changed(world: World) -> None:
    await world.tenant()
    await world.variants("sku1")
    group = Committing(world, replace(QUICK, update_lock_timeout_ms=50))
    async with group.running(), locked(world):
        answers = await results([group.submit(stock_update(available=n)) for n in range(3)])
        assert [type(answer) for answer in answers] == [LockBusy] * 3
        [answer] = {str(answer) for answer in answers}
        assert answer == "Another change holds a lock on the same rows; try again"
        assert await world.history() == []
    async with group.running():
        assert isinstance((await results([group.submit(stock_update(available=4))]))[0], Receipt)
    assert await level(world) == (4, 1)


async def test_a_bad_request_among_those_set_aside_fails_alone(world: World) -> None:
    await world.tenant()
    await world.variants("sku1")
    group = Committing(world)
    with capture_logs():
        async with group.running():
            async with locked(world):
                tasks = [group.submit(stock_update(available=1))]
                await set_aside(group)
                tasks += [group.submit(stock_update(available=2, blib=2**40)), group.submit(stock_update(available=3))]
                await asyncio.sleep(0)
                await until(group.queued, lambda queued: queued == 0)
            answers = await results(tasks)
    assert [type(answer) for answer in answers] == [Receipt, LumbungError, Receipt]
    assert await level(world) == (3, 2)


# A COMMIT whose answer is lost


class Losing(Pool):
    """A pool that loses the answer of each COMMIT: `commits`, whether it took effect; `lookup`, whether one can ask."""

    commits = True
    lookup = True
    transactions = 0

    @asynccontextmanager
    async def transaction(
        self, *, lock_timeout_ms: int | None = None, may_idle: bool = False
    ) -> AsyncIterator[Connection]:
        self.transactions += 1
        lost = CommitUnknown("The connection was lost during the commit", retry_after_seconds=2)
        if not self.commits:
            async with super().transaction(lock_timeout_ms=lock_timeout_ms) as connection:
                yield connection
                raise lost
        async with super().transaction(lock_timeout_ms=lock_timeout_ms) as connection:
            yield connection
        raise lost

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        if self.transactions and not self.lookup and not self._inside():
            raise Unavailable("The database cannot be reached", retry_after_seconds=2)
        async with super().connection() as connection:
            yield connection

    def _inside(self) -> bool:
        """Whether the caller opens a transaction (the lookup does not)."""
        import inspect

        return any(frame.function == "transaction" for frame in inspect.stack()[:8])


async def test_a_commit_that_took_effect_is_found_and_answered_once(world: World, database_url: str) -> None:
    await world.tenant()
    await world.variants("sku1", "sku2")
    async with Losing(database_url, Settings()) as pool:
        group = Committing(world, pool=pool)
        tasks = [group.submit(stock_update("sku1", 1)), group.submit(stock_update("sku2", 2))]
        async with group.running():
            answers = await results(tasks)
    codes = {answer.transaction_code for answer in answers if isinstance(answer, Receipt)}
    assert codes == {record.transaction_code for record in await world.history()}
    assert (len(codes), pool.transactions) == (2, 1)
    assert (await level(world), await level(world, "sku2")) == ((1, 1), (2, 1))


async def test_a_commit_that_did_not_take_effect_is_503_and_not_run_again(world: World, database_url: str) -> None:
    await world.tenant()
    await world.variants("sku1")
    async with Losing(database_url, Settings()) as pool:
        pool.commits = False
        group = Committing(world, pool=pool)
        tasks = [group.submit(stock_update(available=n)) for n in range(3)]
        async with group.running():
            answers = await results(tasks)
    assert [type(answer) for answer in answers] == [CommitUnknown] * 3
    assert pool.transactions == 1
    assert (await world.history(), await level(world)) == ([], (0, 0))


async def test_a_commit_that_cannot_be_looked_up_is_503(world: World, database_url: str) -> None:
    await world.tenant()
    await world.variants("sku1")
    async with Losing(database_url, Settings()) as pool:
        pool.lookup = False
        group = Committing(world, pool=pool)
        async with group.running():
            [answer] = await results([group.submit(stock_update(available=1))])
    assert isinstance(answer, CommitUnknown)
    assert pool.transactions == 1
    assert await level(world) == (1, 1)


async def test_a_repeated_key_after_a_lost_answer_gives_the_code_that_took_effect(
    world: World, database_url: str
) -> None:
    await world.tenant()
    await world.variants("sku1")
    key = Idempotency("key", b"\x00" * 32)
    first, again = (Submission(world.tenant_id, PARTNER_ID, UUID(int=n), stock_update(), key) for n in (1, 2))
    async with Losing(database_url, Settings()) as pool:
        pool.lookup = False
        group = Committing(world, pool=pool)
        async with group.running():
            [answer] = await results([asyncio.create_task(group.commits.submit(first))])
    assert isinstance(answer, CommitUnknown)
    healthy = Committing(world)
    async with healthy.running():
        receipt = await healthy.commits.submit(again)
    assert receipt.transaction_code == UUID(int=1)
    assert len(await world.history()) == 1


async def test_a_connection_cut_during_the_commit_is_told_apart_from_one_cut_before(
    world: World, database_url: str
) -> None:
    """The real thing: the server closes the connection while a deferred trigger runs, which is inside the COMMIT."""
    await world.tenant()
    await world.variants("sku1")
    await world.execute(
        "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
    )
    await world.execute(
        "CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON stock_level DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION cut()"
    )
    async with Pool(database_url, Settings()) as pool:
        group = Committing(world, pool=pool)
        async with group.running():
            [answer] = await results([group.submit(stock_update(available=1))])
    assert type(answer) is CommitUnknown
    assert (await world.history(), await level(world)) == ([], (0, 0))


# Stopping


async def test_a_stop_commits_and_answers_everything_that_was_taken_in(world: World) -> None:
    await world.tenant()
    await world.variants("sku1", "sku2")
    group = Committing(world, replace(QUICK, group_updates_max=4, group_commits_in_flight_max=1))
    async with group.running():
        async with locked(world, "sku2"):
            blocked = group.submit(stock_update("sku2", 5))
            await set_aside(group)
            tasks = [group.submit(stock_update(available=n)) for n in range(30)]
            await asyncio.sleep(0)
            drained = asyncio.create_task(group.commits.drain())
            assert {type(result) for result in await results(tasks)} == {Receipt}
            assert not drained.done()
        async with asyncio.timeout(10):
            await drained
        assert blocked.done()
    assert (await level(world), await level(world, "sku2")) == ((29, 30), (5, 1))


async def test_a_server_that_stops_answers_the_requests_that_it_has_read(world: World, keyring: Keyring) -> None:
    await world.tenant()
    await world.partner()
    await world.variants("sku1")
    body = {"sku": "sku1", "warehouse": "default", "available_stock": 8, "buffer_stock": 0, "channel_stock": []}
    stopped = asyncio.Event()

    async def serve(started: asyncio.Future[str]) -> None:
        async with running_api(FAST, world.pool, keyring) as (url, _):
            started.set_result(url)
            await stopped.wait()

    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(started))
    async with aiohttp.ClientSession() as session:
        client = Client(await started, session)
        async with locked(world):
            request = asyncio.create_task(client.update(body))
            await waiting_for_locks(world, 1)
            stopped.set()
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            answer = await request
            await serving
    assert answer.status == 200
    assert [str(record.transaction_code) for record in await world.history()] == [answer.json["transaction_code"]]
