"""What goes wrong, and when. Two hands: one for processes, database and networks, one for marketplaces."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from lumbung.errors import UsageError
from lumbung.torture import deeds_of_marketplaces as marketplaces
from lumbung.torture import deeds_of_networks as networks
from lumbung.torture import deeds_of_processes as processes
from lumbung.torture.targets import Targets

Act = Callable[[Targets], Awaitable[None]]

TO_THE_HUB: Mapping[str, Act] = {
    "kill": processes.kill,
    "kill-before-claim": processes.kill_before_claim,
    "kill-after-claim": processes.kill_after_claim,
    "kill-before-send": processes.kill_before_send,
    "kill-in-answer": processes.kill_in_answer,
    "kill-before-record": processes.kill_before_record,
    "kill-api": processes.kill_api,
    "freeze": processes.freeze,
    "restart": processes.restart,
    "stop-database": networks.stop_database,
    "outage": networks.outage,
    "clock": networks.clock,
    "cut-database": networks.cut_database,
    "cut-marketplaces": networks.cut_marketplaces,
}
BY_MARKETPLACES: Mapping[str, Act] = {
    "throttle": marketplaces.throttle,
    "errors": marketplaces.errors,
    "errors-applied": marketplaces.errors_applied,
    "lost-answers": marketplaces.lost_answers,
    "late": marketplaces.late,
    "garbage": marketplaces.garbage,
    "down": marketplaces.down,
    "slow": marketplaces.slow,
    "dead-token": marketplaces.dead_token,
}
STANDING = ("expiring-tokens", "poison", "pgbouncer")
"""Not deeds but how the world is set up. pgbouncer only when it is named."""

KNOWN = (*TO_THE_HUB, *BY_MARKETPLACES, *STANDING)
USUAL = tuple(name for name in KNOWN if name != "pgbouncer")


def chosen(text: str) -> tuple[str, ...]:
    """The names of a list such as `kill,late`; `all` and `none` are lists too. Raises UsageError."""
    if text == "all":
        return USUAL
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if names == ("none",):
        return ()
    if unknown := [name for name in names if name not in KNOWN]:
        raise UsageError(f"--nemesis knows no {unknown[0]!r}; it takes all, none, or any of {', '.join(KNOWN)}")
    return names


class Nemesis:
    """Each hand throws dice of its own: what it does goes by the seed, however long the other's deeds take."""

    def __init__(self, targets: Targets, names: Sequence[str]):
        self._targets = targets
        self._names = set(names)

    async def run(self, stop: asyncio.Event) -> None:
        """Do one thing after another with each hand until stopped; what was begun is brought to its end."""
        async with asyncio.TaskGroup() as hands:
            for acts in (TO_THE_HUB, BY_MARKETPLACES):
                hands.create_task(self._hand(acts, self._targets.with_own_dice(), stop))

    async def _hand(self, acts: Mapping[str, Act], targets: Targets, stop: asyncio.Event) -> None:
        """Each in its turn, in an order that is new for every round."""
        names = [name for name in acts if name in self._names]
        while names:
            for name in targets.dice.sample(names, len(names)):
                if stop.is_set():
                    return
                await acts[name](targets)
                if not stop.is_set():
                    await targets.lifetimes(0.2, 1.0)
