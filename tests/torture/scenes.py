"""Deeds that meet one race: too rare for a nemesis that goes by dice, and certain when its steps are put in order."""

from __future__ import annotations

import asyncio
from functools import partial

from lumbung.torture.fault import Direction, Fault, Mode
from lumbung.torture.fleet import Member
from lumbung.torture.targets import Targets

RESET = Fault(mode=Mode.RESET)
HOLD_REQUESTS = Fault(mode=Mode.HOLD, direction=Direction.REQUESTS)
PATIENCE_LIFETIMES = 6.0
WRITES_TOKENS = b"UPDATE store SET tokens"
CHANNELS = ("blib", "bklp", "shpe")


async def answers_come_and_cannot_be_written(targets: Targets) -> None:
    """A worker has answers that it cannot write down, until its successor waits to see what becomes of its own calls:
    written then, they would say that nothing is in doubt."""
    worker = await _holder(targets)
    await _misbehave(targets, {"latency_ms": 500 * targets.timeout})
    await targets.lifetimes(0.3, 0.3)
    with targets.journal.deed("cut-database", workers=frozenset({worker.source})) as cut:
        held = await targets.held_by(worker)
        worker.database.set(RESET)
        cut.hit = await targets.until(partial(_taken_over, targets, worker, held), PATIENCE_LIFETIMES)
        await _late(targets)
        worker.database.clear()


async def _late(targets: Targets) -> None:
    """For longer than a call takes none is answered, and each takes effect as late as it may; then they are again."""
    with targets.journal.deed("late", clear=True) as deed:
        deed.note = ",".join(CHANNELS)
        late_ms = 900 * targets.quiesce
        await _misbehave(targets, {"timeout_rate": 1.0, "timeout_ms": 3000 * targets.timeout, "late_apply_ms": late_ms})
        await asyncio.sleep(targets.timeout + 0.2)
        await asyncio.to_thread(targets.market.behave)
    await asyncio.sleep(targets.timeout + 0.2)


async def a_new_pair_cannot_be_written(targets: Targets) -> None:
    """A worker has traded a token pair and cannot write the new one; meanwhile its successor finds the old one dead and
    the operator has the store authorised again."""
    workers = targets.fleet.workers
    for worker in workers:
        worker.database.set_when_asked(WRITES_TOKENS, HOLD_REQUESTS)

    async def caught() -> bool:
        return any(worker.database.triggered for worker in workers)

    async def mended(times: int) -> bool:
        return len(targets.journal.mended) >= times

    if not await targets.until(caught, PATIENCE_LIFETIMES):
        return
    late = next(worker for worker in workers if worker.database.triggered)
    for worker in workers:
        if worker is not late:
            worker.database.clear()
    with targets.journal.deed("cut-database", workers=frozenset({late.source})) as cut:
        cut.hit = await targets.until(partial(mended, 1), PATIENCE_LIFETIMES)
        late.database.clear()
    await targets.until(partial(mended, 2), PATIENCE_LIFETIMES)


async def work_in_hand_and_no_database(targets: Targets) -> None:
    """A worker that has just read what is due, of stores that allow few calls, cannot reach the database any more."""
    worker = targets.fleet.workers[0]
    async with asyncio.timeout(PATIENCE_LIFETIMES * targets.lifetime):
        await targets.fleet.market.moved(worker.source, Direction.REQUESTS)
    with targets.journal.deed("cut-database", workers=frozenset({worker.source})):
        worker.database.set(RESET)
        await targets.lifetimes(3.0, 3.0)
        worker.database.clear()


async def _misbehave(targets: Targets, faults: dict[str, object]) -> None:
    for channel in CHANNELS:
        await asyncio.to_thread(targets.market.misbehave, channel, faults)


async def _holder(targets: Targets) -> Member:
    """The worker that holds most stores."""
    held = {worker.name: len(await targets.held_by(worker)) for worker in targets.fleet.workers}
    return max(targets.fleet.workers, key=lambda worker: held[worker.name])


async def _taken_over(targets: Targets, worker: Member, held: set[tuple[str, str]]) -> bool:
    others = [await targets.held_by(other) for other in targets.fleet.workers if other is not worker]
    return held <= set().union(*others)
