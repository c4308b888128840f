"""What marketplaces do to calls. Each call's own line tells what it met, so that others' outcomes stay known."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from lumbung.torture.targets import Targets

# Where a channel has tokens, only what is not about them is hit: who loses the answer to a trade loses the store, which
# no hub can help. That kills and cuts bring it about all the same is the operator's to mend.
TOKENS = {"shpe": "/product/", "bklp": "/bklp/api/"}


async def throttle(targets: Targets) -> None:
    """Calls are refused as too many, with and without Retry-After."""
    after: dict[str, object] = {"retry_after_s": 1} if targets.dice.random() < 0.5 else {}
    await _misbehave(targets, "throttle", {"throttle_rate": 0.3, **after})


async def errors(targets: Targets) -> None:
    """5xx, and nothing is applied."""
    await _misbehave(targets, "errors", {"error_rate": 0.5})


async def errors_applied(targets: Targets) -> None:
    """5xx, and it is applied all the same."""
    await _misbehave(targets, "errors-applied", {"apply_then_5xx_rate": 0.4})


async def lost_answers(targets: Targets) -> None:
    """It is applied, and the connection breaks."""
    await _misbehave(targets, "lost-answers", {"drop_response_rate": 0.4})


async def late(targets: Targets) -> None:
    """No answer in time, and it is applied long after, over whatever newer number came in between."""
    late_ms = 1000 * targets.dice.uniform(0.5 * targets.timeout, 0.9 * targets.quiesce)
    await _misbehave(
        targets, "late", {"timeout_rate": 0.3, "timeout_ms": 3000 * targets.timeout, "late_apply_ms": late_ms}
    )


async def garbage(targets: Targets) -> None:
    """Answers that are none; applied or not."""
    await _misbehave(targets, "garbage", {"garbage_rate": 0.4})


async def down(targets: Targets) -> None:
    """A marketplace is away: connections are reset."""
    await _misbehave(targets, "down", {"down": True})


async def slow(targets: Targets) -> None:
    """Answers take half the time that is left for them."""
    await _misbehave(targets, "slow", {"latency_ms": 500 * targets.timeout})


async def dead_token(targets: Targets) -> None:
    """A seller withdraws the authorisation of a store: it waits for a person, the others go on."""
    store = targets.dice.choice([store for store in targets.world.stores if store.channel in TOKENS])
    with targets.journal.deed("dead-token", clear=True) as deed:
        deed.stores = frozenset({(store.channel, store.code)})
        await asyncio.to_thread(targets.market.revoke, store.channel, store.code)


async def _misbehave(targets: Targets, name: str, faults: Mapping[str, object]) -> None:
    channels = sorted({store.channel for store in targets.world.stores})
    chosen = channels if targets.dice.random() < 0.3 else [targets.dice.choice(channels)]
    with targets.journal.deed(name, clear=True) as deed:
        deed.note = ",".join(chosen)
        for channel in chosen:
            seeded = {**faults, "seed": targets.dice.randrange(2**31), "path_contains": TOKENS.get(channel, "")}
            await asyncio.to_thread(targets.market.misbehave, channel, seeded)
        try:
            await targets.lifetimes(0.5, 2.0)
        finally:
            await asyncio.to_thread(targets.market.behave)
