"""What goes wrong, and when; and what operators do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from tests.simulation import leases
from tests.simulation.auditor import is_lost
from tests.simulation.sessions import QUIESCE_SECONDS

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

JUMP_SECONDS = 3600.0


class Nemesis:
    def __init__(self, simulation: Simulation, dice: Random):
        self._simulation = simulation
        self._dice = dice
        self._lost = simulation.bell.lost

    async def run(self) -> None:
        deeds = self._simulation.scenario.deeds
        while deeds:
            await asyncio.sleep(self._dice.expovariate(1 / self._simulation.scenario.deeds_every_seconds))
            self._do(self._dice.choice(deeds))

    def _do(self, deed: str) -> None:
        match deed:
            case "kill" | "freeze" | "restart":
                self._to_worker(deed)
            case "pause" | "revoke" | "expire":
                self._to_store(deed)
            case "floor" | "lock" | "ban" | "poison":
                self._to_listing(deed)
            case "away":
                self._tell("the database is away")
                self._simulation.faults.away = True
                self._later(0.5 + 12 * self._dice.random(), self._database_back)
            case "deaf":
                self._tell("wake-ups are lost")
                self._simulation.bell.lost = 1.0
                self._later(5 * self._dice.random(), self._hear)
            case "jump":
                seconds = self._dice.choice((-JUMP_SECONDS, JUMP_SECONDS))
                self._tell(f"the database's clock jumps by {seconds} s")
                self._simulation.offset += seconds
                self._simulation.auditor.clock_jumped_at = self._simulation.loop.time()
            case _:
                raise ValueError(deed)

    # --- processes ---

    def _to_worker(self, deed: str) -> None:
        workers = [(process, stop) for process, stop in self._simulation.workers if not process.frozen]
        if not workers:
            return
        process, stop = self._dice.choice(workers)
        self._tell(f"{deed} {process.name}")
        if deed == "freeze":
            seconds = self._simulation.scenario.settings.lease_seconds * (1 + 2 * self._dice.random())
            self._simulation.loop.freeze(process, self._simulation.loop.time() + seconds)
            return
        self._simulation.workers.remove((process, stop))
        if deed == "kill":
            process.dead = True
            self._later(6 * self._dice.random(), self._simulation.start_worker)
        else:
            stop.set()
            self._later(self._dice.random(), self._simulation.start_worker)

    # --- stores ---

    def _to_store(self, deed: str) -> None:
        store_id = self._dice.choice(list(self._simulation.tables.stores))
        self._tell(f"{deed} store {store_id}")
        tables = self._simulation.tables
        if deed == "pause":
            leases.pause(tables, store_id, "an operator said so")
            self._later(4 * self._dice.random(), self._resume, store_id)
        elif deed == "revoke":
            leases.revoke(tables, store_id, QUIESCE_SECONDS)
        else:
            self._simulation.market.accounts[store_id].access_until = 0.0

    def _resume(self, store_id: int) -> None:
        self._tell(f"resume store {store_id}")
        leases.resume(self._simulation.tables, store_id)
        self._simulation.bell.ring({store_id: {}})

    def mend(self) -> None:
        """What an operator does who looks now and then: log in again where a pair is gone for good, resume."""
        tables = self._simulation.tables
        for account in self._simulation.market.accounts.values():
            dead = account.traded_by is not None and account.traded_by.dead
            if is_lost(tables, account) and dead:
                self._tell(f"log in to store {account.store_id}")
                self._simulation.log_in(account)
                leases.revoke(tables, account.store_id, QUIESCE_SECONDS)
            if not tables.is_live(account.store_id):
                self._find_cause(account.store_id)
                self._resume(account.store_id)

    def _find_cause(self, store_id: int) -> None:
        """A storm pauses a store until whatever was set up wrongly is right."""
        if "set up wrongly" in (self._simulation.tables.stores[store_id].pause_reason or ""):
            for shelf in self._simulation.market.shelves.values():
                if shelf.store_id == store_id:
                    self._free(shelf.listing_id)

    # --- listings ---

    def _to_listing(self, deed: str) -> None:
        shelf = self._dice.choice(list(self._simulation.market.shelves.values()))
        self._simulation.trace.add(f"listing {shelf.listing_id}", "nemesis:", deed)
        match deed:
            case "floor":
                shelf.floor = 5000 + self._dice.randint(0, 3)
            case "lock":
                shelf.locked = True
            case "ban":
                shelf.banned = True
            case _:
                shelf.poison = True
        if self._dice.random() < 0.9:
            self._later(10 * self._dice.random(), self._free, shelf.listing_id)

    def _free(self, listing_id: int) -> None:
        shelf = self._simulation.market.shelves[listing_id]
        shelf.floor, shelf.locked, shelf.banned, shelf.poison = None, False, False, False
        self._simulation.trace.add(f"listing {listing_id}", "nemesis: free")

    # --- the end ---

    def make_fair(self) -> None:
        """The faults end. What marketplaces do to some listings stays."""
        self._tell("fair weather")
        simulation = self._simulation
        self._database_back()
        self._hear()
        self._lost = simulation.bell.lost = 0.0
        simulation.faults.refused = simulation.faults.answer_lost = 0.0
        simulation.faults.slow = simulation.faults.lock_busy = 0.0
        simulation.chances.faults = {}
        for account in simulation.market.accounts.values():
            account.answered = 0
        simulation.chances.refresh_unavailable = simulation.chances.forgotten = 0.0
        self.mend()

    def _database_back(self) -> None:
        self._simulation.faults.away = False

    def _hear(self) -> None:
        self._simulation.bell.lost = self._lost

    def _later(self, seconds: float, deed: Callable[..., object], *values: object) -> None:
        self._simulation.loop.later(seconds, deed, *values)

    def _tell(self, what: str) -> None:
        self._simulation.trace.add("all", "nemesis:", what)
