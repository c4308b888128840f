"""What befalls processes of the hub: killed at every point of their work, frozen, stopped in good order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial

from lumbung.torture.fault import Direction, Fault, Mode
from lumbung.torture.fleet import Member
from lumbung.torture.journal import Deed
from lumbung.torture.targets import Targets, name_of

LOOKS = b"WITH RECURSIVE working AS"  # as db/delivery.sql has it
COMMITS = b"COMMIT"
HOLD_ANSWERS = Fault(mode=Mode.HOLD, direction=Direction.ANSWERS)
HOLD_REQUESTS = Fault(mode=Mode.HOLD, direction=Direction.REQUESTS)
LOSE_REQUESTS = Fault(mode=Mode.DROP, direction=Direction.REQUESTS)
PATIENCE_LIFETIMES = 3.0
LATE_SHARE = 0.9  # of the time for which a lost call may still take effect


async def kill(targets: Targets) -> None:
    """A worker, at any moment. Who takes over its stores, and when, is measured."""
    worker = targets.a_worker()
    held = await targets.held_by(worker)
    with targets.journal.deed("kill", workers=frozenset({worker.source})) as deed:
        deed.stores = frozenset(held)
        await worker.process.kill()
        await targets.lifetimes(2.0, 2.5)
        await worker.process.start()


async def kill_before_claim(targets: Targets) -> None:
    """A worker that has just registered and looks for work: it never hears of any, and claims nothing."""
    worker = targets.a_worker()
    with _aim(targets, "kill-before-claim", worker) as deed:
        await worker.process.kill()
        worker.database.set_when_asked(LOOKS, HOLD_ANSWERS)
        await worker.process.start()
        deed.hit = await targets.until(_triggered(worker), PATIENCE_LIFETIMES * 2)
        await worker.process.kill()
        worker.database.clear()
        await worker.process.start()


async def kill_after_claim(targets: Targets) -> None:
    """A worker that has just leased stores, and has asked no marketplace anything."""
    worker = targets.a_worker()

    async def holds() -> bool:
        return bool(await targets.held_by(worker))

    with _aim(targets, "kill-after-claim", worker) as deed:
        await worker.process.kill()
        targets.fleet.market.set(LOSE_REQUESTS, worker.source)
        await worker.process.start()
        deed.hit = await targets.until(holds, PATIENCE_LIFETIMES * 2)
        await worker.process.kill()
        targets.fleet.market.clear(worker.source)
        await worker.process.start()


async def kill_before_send(targets: Targets) -> None:
    """A worker that has sent a request which is not out of the machine yet: the marketplace gets it later, or never."""
    worker = targets.a_worker()
    fault = targets.dice.choice((HOLD_REQUESTS, LOSE_REQUESTS))
    with _aim(targets, "kill-before-send", worker) as deed:
        deed.hit = await _caught(targets, worker, fault, Direction.REQUESTS)
        await worker.process.kill()
        if fault is HOLD_REQUESTS:
            await asyncio.sleep(LATE_SHARE * targets.quiesce)  # by then somebody else has sent something newer
        targets.fleet.market.clear(worker.source)
        await worker.process.start()


async def kill_in_answer(targets: Targets) -> None:
    """A worker whose call was applied, and whose answer is on its way."""
    worker = targets.a_worker()
    with _aim(targets, "kill-in-answer", worker) as deed:
        deed.hit = await _caught(targets, worker, HOLD_ANSWERS, Direction.ANSWERS)
        await worker.process.kill()
        targets.fleet.market.clear(worker.source)
        await worker.process.start()


async def kill_before_record(targets: Targets) -> None:
    """A worker that has the answer and cannot write it down."""
    worker = targets.a_worker()
    with _aim(targets, "kill-before-record", worker) as deed:
        worker.database.set(HOLD_REQUESTS)
        deed.hit = await _moves(targets, worker, Direction.ANSWERS)
        await asyncio.sleep(0.02)  # the answer is read
        await worker.process.kill()
        worker.database.set(LOSE_REQUESTS)  # what was held of a dead process goes nowhere
        worker.database.clear()
        await worker.process.start()


async def kill_api(targets: Targets) -> None:
    """An API process between a commit and its answer."""
    api = targets.an_api()
    with targets.journal.deed("kill-api", workers=frozenset()) as deed:
        api.database.set_when_asked(COMMITS, HOLD_ANSWERS)
        deed.hit = await targets.until(_triggered(api), PATIENCE_LIFETIMES)
        await asyncio.sleep(0.02)  # the commit is done
        await api.process.kill()
        api.database.clear()
        await api.process.start()


async def freeze(targets: Targets) -> None:
    """A worker stands still for two lifetimes, in the middle of whatever it did, and goes on as if nothing was."""
    worker = targets.a_worker()
    with targets.journal.deed("freeze", workers=frozenset({worker.source})):
        worker.process.freeze()
        await targets.lifetimes(2.0, 2.2)
        worker.process.thaw()


async def restart(targets: Targets) -> None:
    """Every process of the hub is stopped in good order and started again, one after the other."""
    for member in targets.fleet.members:
        workers = frozenset({member.source} if member.source else ())
        works = await targets.until(partial(targets.works, member), PATIENCE_LIFETIMES)
        with targets.journal.deed("restart", workers=workers) as deed:
            name = name_of(member)
            life = await member.process.stop()
            deed.hit = works and not life.unasked  # one that just begins has no order yet
            deed.figures["exit_seconds"] = life.gone_at - life.ended_at
            deed.figures["exit_code"] = life.code
            if member.source and (in_order := await targets.left_in_order(name)) is not None:
                deed.figures["in_order"] = in_order
            await member.process.start()
        await targets.lifetimes(0.3, 0.6)


def _triggered(member: Member) -> Callable[[], Awaitable[bool]]:
    """Whether the request has come that its way to the database awaits."""

    async def triggered() -> bool:
        return member.database.triggered

    return triggered


def _aim(targets: Targets, name: str, worker: Member) -> AbstractContextManager[Deed]:
    return targets.journal.deed(name, workers=frozenset({worker.source}))


async def _caught(targets: Targets, worker: Member, fault: Fault, direction: Direction) -> bool:
    """Whether something was caught in a fault between the worker and the marketplaces."""
    targets.fleet.market.set(fault, worker.source)
    return await _moves(targets, worker, direction)


async def _moves(targets: Targets, worker: Member, direction: Direction) -> bool:
    try:
        async with asyncio.timeout(PATIENCE_LIFETIMES * targets.lifetime):
            await targets.fleet.market.moved(worker.source, direction)
    except TimeoutError:
        return False
    return True
