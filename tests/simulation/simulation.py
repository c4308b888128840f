"""One run: the world of a seed, its workers, what happens to them, and the judgement at the end."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import structlog
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lumbung.db.lease import ChannelTimes
from lumbung.dispatch.lease_clock import lifetime_seconds
from lumbung.dispatch.metrics import WorkerMetrics
from lumbung.dispatch.tokens import digest, seal
from lumbung.dispatch.worker import Worker
from lumbung.keyring import Keyring
from lumbung.model import StockUpdate, purpose_of_store
from tests.simulation.accepting import accept
from tests.simulation.auditor import Auditor
from tests.simulation.loop import STARTED_AT, NothingLeft, Process, VirtualClock, VirtualLoop
from tests.simulation.marketplace import Account, Chances, Marketplace, Shelf
from tests.simulation.memory import MemoryStorage, SimulatedLink
from tests.simulation.nemesis import Nemesis
from tests.simulation.scenario import Scenario, StoreSpec
from tests.simulation.sessions import CALL_TIMEOUT_SECONDS, QUIESCE_SECONDS, SimulatedOpener, manifests
from tests.simulation.tables import Budget, Lease, Listing, Store, Tables
from tests.simulation.trace import Broken, Trace
from tests.simulation.wakeups import Bell, SimulatedWakeUps

REST_SECONDS_MAX = 150.0
BUGS = frozenset({"a sender failed", "the connector failed", "results cannot be stored", "a store cannot be opened"})


class Simulation:
    """`faults`, `chances`: set by the nemesis. `offset`: by which the database's clock has jumped."""

    def __init__(self, scenario: Scenario):
        self.scenario = scenario
        self.loop = VirtualLoop()
        self.trace = Trace(self.loop.time)
        self.offset = 0.0
        self.tables = Tables(lambda: STARTED_AT.timestamp() + self.loop.time() + self.offset)
        self.faults = replace(scenario.link_faults)
        self.chances = Chances(
            dict(scenario.call_faults),
            refresh_unavailable=scenario.refresh_unavailable,
            forgotten=scenario.handles_forgotten,
        )
        self.market = Marketplace(
            self.loop, self._dice("market"), self.trace, self.chances, quiesce_seconds=QUIESCE_SECONDS
        )
        self.bell = Bell(self.loop, self._dice("bell"))
        self.bell.lost = scenario.wake_ups_lost
        self.keyring = Keyring(Path(), {b"simulate": AESGCM(bytes(32))})
        self.workers: list[tuple[Process, asyncio.Event]] = []
        self.processes: list[Process] = []
        for spec in scenario.stores:
            self._build_store(spec)
        for listing_id, variant_id, store_id in scenario.listings:
            self._build_listing(listing_id, variant_id, store_id)
        self.auditor = Auditor(self.tables, self.market, self.trace, clear=scenario.clear, fair=scenario.fair)
        if scenario.budget is not None:
            rate, burst = scenario.budget
            self.tables.budgets[1] = [Budget(rate, burst, self.tables.now())]
            self.auditor.limit_application(1, rate, burst)

    def _dice(self, name: str) -> Random:
        return Random(f"{name} {self.scenario.seed}")

    # --- the world ---

    def _build_store(self, spec: StoreSpec) -> None:
        account = Account(
            spec.id,
            spec.channel,
            spec.rate,
            spec.burst,
            submits=spec.channel == "feed",
            compares=spec.compares,
            app_id=spec.app_id,
            access_seconds=30.0 if spec.channel == "token" else 0.0,
        )
        self.market.accounts[spec.id] = account
        credentials = json.dumps({"calls_per_second": str(spec.rate)}).encode()
        store = Store(spec.id, spec.tenant_id, spec.channel, f"store {spec.id}", channel_app_id=spec.app_id)
        store.credentials = self.keyring.encrypt(credentials, purpose_of_store(spec.id))
        account.burst = max(1, int(spec.rate))
        self.tables.stores[spec.id] = store
        self.tables.leases[spec.id] = Lease(spec.id, spec.tenant_id)
        if spec.channel == "token":
            self.log_in(account)

    def log_in(self, account: Account) -> None:
        """The merchant logs in: a new pair, stored by whoever sets the store up."""
        tokens, store = self.market.issue(account, None), self.tables.stores[account.store_id]
        store.tokens, store.tokens_digest = seal(self.keyring, store.id, tokens), digest(tokens)

    def _build_listing(self, listing_id: int, variant_id: int, store_id: int) -> None:
        tenant_id = self.tables.stores[store_id].tenant_id
        self.tables.variants[tenant_id, f"sku{variant_id}"] = variant_id
        self.tables.listings[tenant_id, listing_id] = Listing(
            tenant_id, listing_id, variant_id, store_id, str(listing_id)
        )
        self.market.shelves[listing_id] = Shelf(listing_id, store_id)

    def start_worker(self) -> None:
        number = len(self.processes) + 1
        process = Process(f"w{number}")
        kinds = manifests(20.0, 5)
        times = {
            code: ChannelTimes(
                QUIESCE_SECONDS, lifetime_seconds(self.scenario.settings.lease_seconds, CALL_TIMEOUT_SECONDS)
            )
            for code in kinds
        }
        link = SimulatedLink(self.loop, self._dice(f"link {number}"), self.faults)
        storage = MemoryStorage(self.tables, link, self.scenario.settings, times, self.auditor.recorded)
        clock = VirtualClock(self.loop)
        stop = asyncio.Event()
        worker = Worker(
            storage,
            SimulatedWakeUps(self.bell, process),
            self.scenario.settings,
            name=process.name,
            lifetime_seconds=self.scenario.settings.lease_seconds,
            opener=SimulatedOpener(kinds, self.market, process, self.keyring, clock),
            clock=clock,
            metrics=WorkerMetrics(),
            dice=self._dice(f"dice {number}").random,
        )
        self.processes.append(process)
        self.workers.append((process, stop))
        self.loop.start(process, worker.run(stop))
        self.trace.add("all", "start", process.name)

    # --- the run ---

    def run(self) -> None:
        """Raises Broken, or whatever a bug raises."""
        with _logs():
            failure = self._played() or self._bug()
            try:
                self._take_apart()
            finally:
                self.loop.close()
            if failure is not None:
                raise failure

    def _played(self) -> BaseException | None:
        try:
            self.loop.run_until_complete(self._play())
        except NothingLeft:
            return Broken(6, "nothing is left to run", self.trace.last("all"))
        except BaseException as error:  # noqa: BLE001
            return self.loop.failure or error
        return self.loop.failure

    async def _play(self) -> None:
        for _ in range(self.scenario.workers):
            self.start_worker()
        nemesis = Nemesis(self, self._dice("nemesis"))
        updates = asyncio.create_task(self._update())
        customers = asyncio.create_task(self._shop())
        deeds = asyncio.create_task(nemesis.run())
        await asyncio.sleep(self.scenario.seconds)
        await updates
        for task in (customers, deeds):
            task.cancel()
        nemesis.make_fair()
        await self._rest(nemesis)
        self.auditor.final()
        await self._stop()

    async def _update(self) -> None:
        """Updates come in bursts; one that finds the database away is not accepted."""
        dice = self._dice("updates")
        skus = list(self.tables.variants)
        left = {sku: list(range(1, 500)) for sku in skus}
        if not self.scenario.ordered:
            for quantities in left.values():
                quantities[0] = 0
                dice.shuffle(quantities)
        for number in range(self.scenario.updates):
            if dice.random() < 0.6:
                await asyncio.sleep(2 * dice.random() * self.scenario.seconds / self.scenario.updates / 0.6)
            tenant_id, sku = dice.choice(skus)
            update = StockUpdate(sku, "default", left[tenant_id, sku].pop(0), 0, True, {})
            if not self.faults.away:
                accepted = accept(self.tables, tenant_id, update, f"code-{number}")
                self.auditor.accepted(accepted, tenant_id)
                self.bell.ring(accepted.hints)

    async def _shop(self) -> None:
        dice, rate = self._dice("customers"), self.scenario.customers
        while rate > 0:
            await asyncio.sleep(dice.expovariate(rate))
            self.market.buy(dice.choice(self.scenario.listings)[0], dice.randint(1, 3))

    async def _rest(self, nemesis: Nemesis) -> None:
        until = self.loop.time() + REST_SECONDS_MAX
        while (why := self._frozen() or self.auditor.restless()) is not None:
            if self.loop.time() >= until:
                self.auditor.stuck(why)
            await asyncio.sleep(1.0)
            nemesis.mend()

    def _frozen(self) -> str | None:
        if len(self.workers) < self.scenario.workers:
            return "a worker is to be started"
        return next((f"{process.name} is frozen" for process in self.processes if process.frozen), None)

    async def _stop(self) -> None:
        """All end in good order, and leave nothing behind."""
        for _, stop in self.workers:
            stop.set()
        await asyncio.sleep(self.scenario.settings.stop_seconds + 1)
        names = {process.name for process, _ in self.workers}
        live = {worker.id for worker in self.tables.workers.values() if worker.name in names and not worker.stopping}
        held = [lease.store_id for lease in self.tables.leases.values() if lease.worker_id in live]
        if held:
            raise Broken(6, f"stores {held} were not given back", self.trace.last("all"))

    def _bug(self) -> BaseException | None:
        """A task that ended by an exception that nobody expects."""
        for process in self.processes:
            for task in process.tasks:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    return error
        return None

    def _take_apart(self) -> None:
        self.faults.away = True
        self.auditor.retire()
        for process in self.processes:
            self.loop.take_apart(process)
        tasks = [task for process in self.processes for task in process.tasks]
        others = [task for task in asyncio.all_tasks(self.loop) if task not in tasks]
        for task in others:
            task.cancel()

        async def end() -> None:
            await asyncio.gather(*tasks, *others, return_exceptions=True)

        self.loop.run_until_complete(end())


@contextmanager
def _logs() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(processors=[_no_bugs], wrapper_class=structlog.make_filtering_bound_logger(40))
    try:
        yield
    finally:
        structlog.configure(**before)


def _no_bugs(logger: object, method: str, event: Any) -> Any:
    if event["event"] in BUGS:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        error = event.get("exc_info")
        error = sys.exc_info()[1] if error is True else error
        loop.fail(error if isinstance(error, BaseException) else AssertionError(event))
    raise structlog.DropEvent
