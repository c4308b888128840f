"""A run from its beginning to its end: calm, fire, fair weather, rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from lumbung.db import inspection
from lumbung.errors import LumbungError
from lumbung.hub_process import HubProcess
from lumbung.torture import settled
from lumbung.torture.journal import Deed, Journal
from lumbung.torture.nemesis import Nemesis
from lumbung.torture.operator import look_after
from lumbung.torture.settled import AtRest
from lumbung.torture.targets import Targets
from lumbung.torture.workload import Workload

LOOK_SECONDS = 0.25
LOG_LINES_TOLD = 3
START_SECONDS = 60.0
ACKNOWLEDGE_SECONDS = 60.0
TICK_SECONDS, STALL_SECONDS = 0.1, 0.4

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Seconds: before anything goes wrong, while it does, and at most until everything is at rest."""

    calm: float
    fire: float
    rest: float


async def started(targets: Targets, sandbox: HubProcess) -> None:
    """Returns once every process works. Raises LumbungError when one does not."""
    fleet = targets.fleet

    async def all_work() -> bool:
        _none_is_gone([member.process for member in fleet.members] + [sandbox])
        return all(await asyncio.gather(*map(targets.works, fleet.members)))

    await _until(all_work, START_SECONDS, "every process to work")


async def sandbox_answers(targets: Targets) -> None:
    async def answers() -> bool:
        try:
            await asyncio.to_thread(targets.market.status)
        except OSError:
            return False
        return True

    await _until(answers, START_SECONDS, "the sandbox")


async def fight(targets: Targets, workload: Workload, names: tuple[str, ...], lengths: Lengths, tell: Tell) -> str:
    """Returns what was still to happen when the time for rest was up; "" when all came to rest."""
    journal = targets.journal
    workload.start()
    beside = [asyncio.create_task(look_after(targets)), asyncio.create_task(note_stalls(journal))]
    try:
        tell(f"calm for {lengths.calm:g} s")
        await asyncio.sleep(lengths.calm)
        journal.calm_until = time.time()
        tell(f"fire for {lengths.fire:g} s")
        await _fire(targets, names, lengths.fire)
        journal.fire_until = time.time()
        tell("fair weather")
        all_acknowledged = await asyncio.to_thread(workload.finish, ACKNOWLEDGE_SECONDS)
        if not all_acknowledged:
            return "updates that no API process acknowledges"
        return await rest(targets, lengths.rest)
    except BaseException:
        await asyncio.to_thread(workload.finish, 0.0)
        raise
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


async def _fire(targets: Targets, names: tuple[str, ...], seconds: float) -> None:
    stop = asyncio.Event()
    fighting = asyncio.create_task(Nemesis(targets, names).run(stop))
    try:
        await asyncio.wait([fighting], timeout=seconds)
    finally:
        stop.set()
        await fighting


async def note_stalls(journal: Journal) -> None:
    """When the machine stands still nobody can say what was in time: it is as if somebody had frozen every worker.
    Never ends."""
    while True:
        began, wall = time.monotonic(), time.time()
        await asyncio.sleep(TICK_SECONDS)
        if time.monotonic() - began > TICK_SECONDS + STALL_SECONDS:
            journal.deeds.append(Deed("stall", wall, time.time()))


async def rest(targets: Targets, seconds: float) -> str:
    """Waits until nothing is under way any more but what is poisoned."""
    ends = time.monotonic() + seconds
    why = "the database does not answer"
    while time.monotonic() < ends:
        try:
            why = await _restless(targets)
        except LumbungError as error:
            why = str(error)
        if not why:
            return ""
        await asyncio.sleep(LOOK_SECONDS)
    return why


async def _restless(targets: Targets) -> str:
    async with targets.pool.connection() as connection:
        unsettled = await inspection.unsettled(connection)
        open_items = await inspection.open_items(connection)
        paused = await inspection.paused(connection)
    healthy = {(store.channel, store.code) for store in targets.world.stores if not store.poison}
    if waiting := paused.keys() & healthy:
        return f"{len(waiting)} stores wait for a person"
    if left := [one for one in unsettled if one.place not in targets.world.poisoned]:
        return f"{len(left)} listings, such as {left[0]}"
    if open_items:
        return f"{open_items} items"
    status = await asyncio.to_thread(targets.market.status)
    return f"{status['late_writes_pending']} late writes" if status["late_writes_pending"] else ""


async def at_rest(targets: Targets) -> AtRest:
    calm_until = targets.journal.calm_until - targets.longest_wait
    async with targets.pool.connection() as connection:
        return AtRest(
            tuple(await inspection.unsettled(connection)),
            await inspection.parked(connection),
            await inspection.paused(connection),
            await inspection.open_items(connection),
            await inspection.miscounted(connection),
            await inspection.effects(connection),
            await inspection.failed_items(connection, datetime.fromtimestamp(calm_until, UTC)),
        )


async def histories(targets: Targets) -> dict[str, tuple[int, set[str]]]:
    """By tenant, what its partner reads."""
    url = targets.fleet.apis[0].url
    return {tenant.name: await asyncio.to_thread(settled.codes_of, tenant, url) for tenant in targets.world.tenants}


def _none_is_gone(processes: list[HubProcess]) -> None:
    for process in processes:
        if not process.runs:
            last = process.log_path.read_text(errors="replace").splitlines()[-LOG_LINES_TOLD:]
            raise LumbungError("\n".join([f"{process.name} has ended: see {process.log_path}", *last]))


async def _until(right: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    ends = time.monotonic() + seconds
    while not await right():
        if time.monotonic() > ends:
            raise LumbungError(f"Waited {seconds:g} seconds for {what}, in vain")
        await asyncio.sleep(LOOK_SECONDS)
