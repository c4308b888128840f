"""What befalls the database, its clock, and the ways between workers, database and marketplaces."""

from __future__ import annotations

import asyncio
from functools import partial

from lumbung.torture.fake_time import set_clock
from lumbung.torture.fault import Direction, Fault, Mode
from lumbung.torture.targets import Targets, metric, ready

HOUR_SECONDS = 3600
HELD_SHARE = 0.9
AWAY = "lumbung_database_away"
FAULTS = (
    Fault(mode=Mode.RESET),
    Fault(mode=Mode.DROP),
    Fault(mode=Mode.DROP, direction=Direction.ANSWERS),
    Fault(mode=Mode.HALF_OPEN),
    Fault(mode=Mode.HOLD),
    Fault(mode=Mode.HOLD, direction=Direction.ANSWERS),
    Fault(mode=Mode.DELAY, delay_seconds=0.05),
    Fault(mode=Mode.DRIP, tick_bytes=64, tick_seconds=0.01),
)


async def cut_database(targets: Targets) -> None:
    """A worker cannot reach the database, but the marketplaces."""
    worker, fault = targets.a_worker(), targets.dice.choice(FAULTS)
    with targets.journal.deed("cut-database", workers=frozenset({worker.source})) as deed:
        deed.note = str(fault.mode)
        worker.database.set(fault)
        try:
            await targets.lifetimes(1.0, 3.0)
        finally:
            worker.database.clear()


async def cut_marketplaces(targets: Targets) -> None:
    """A worker cannot reach the marketplaces, but the database."""
    worker, fault = targets.a_worker(), targets.dice.choice(FAULTS)
    with targets.journal.deed("cut-marketplaces", workers=frozenset({worker.source})) as deed:
        deed.note = str(fault.mode)
        targets.fleet.market.set(fault, worker.source)
        try:
            # What is held may take effect when it is let go: no later than a lost call can.
            await asyncio.sleep(min(targets.lifetime * targets.dice.uniform(0.5, 2.0), HELD_SHARE * targets.quiesce))
        finally:
            targets.fleet.market.clear(worker.source)


async def stop_database(targets: Targets) -> None:
    """PostgreSQL ends at once, without a checkpoint, and is started again."""
    with targets.journal.deed("stop-database"):
        await targets.stop_database()
        await targets.start_database()


async def outage(targets: Targets) -> None:
    """The database is away for long. /readyz and the metrics tell so; then everything goes on by itself."""
    loop = asyncio.get_running_loop()
    await targets.until(partial(_told, targets, away=False), 5)  # a worker that is still away would not tell it again
    with targets.journal.deed("outage") as deed:
        await targets.stop_database()
        began = loop.time()
        deed.figures["told"] = await targets.until(partial(_told, targets, away=True), 5)
        await asyncio.sleep(max(0.0, targets.outage_seconds - (loop.time() - began)))
        await targets.start_database()
        deed.figures["back"] = await targets.until(partial(_told, targets, away=False), 10)


async def _told(targets: Targets, *, away: bool) -> bool:
    apis = await asyncio.gather(*(asyncio.to_thread(ready, api) for api in targets.fleet.apis))
    workers = await asyncio.gather(*(asyncio.to_thread(metric, one, AWAY) for one in targets.fleet.workers))
    return all(status == (503 if away else 200) for status in apis) and all(value == away for value in workers)


async def clock(targets: Targets) -> None:
    """The database's clock is an hour ahead for a while, and goes back."""
    if targets.clock_file is None:
        return
    for seconds in (HOUR_SECONDS, 0):
        with targets.journal.deed("clock"):
            set_clock(targets.clock_file, seconds)
            await targets.lifetimes(2.0, 3.0)
