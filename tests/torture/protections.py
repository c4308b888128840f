"""The product with one protection taken off, for a whole process: whether the auditor of `lumbung torture` notices.

Each function changes the product in the process that it is called in, for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

from lumbung.api import group_commit
from lumbung.api.group_commit import GroupCommit
from lumbung.channels.base import Accepted, InDoubt, Outcome, Rejected, Throttled, Unavailable
from lumbung.channels.http import HttpClient, NoAnswer, NotSent
from lumbung.db import delivery, lease, stock
from lumbung.db.pool import Pool
from lumbung.db.query import Queries
from lumbung.dispatch import judge, policy
from lumbung.dispatch.budgets import Budgets
from lumbung.dispatch.lease_clock import LeaseClock
from lumbung.dispatch.pacing import Pacer
from lumbung.dispatch.sender import StoreSender
from lumbung.dispatch.window import Window
from lumbung.dispatch.worker import Worker
from lumbung.inventory import stock as accepting

AHEAD_OF_COMMIT_SECONDS = 0.1


def without_the_epoch_check() -> None:
    """Whoever sends for the store by now, the result of a lost holder counts."""
    _rewrite(delivery._queries, "lock_results", " AND l.epoch = r.epoch", "")
    _rewrite(delivery._queries, "lock_results", "r.listing_id, l.epoch", "r.listing_id, r.epoch")


def without_minding_lost_leases() -> None:
    """Who was the holder once goes on as such, beside the new one."""
    without_the_epoch_check()
    _rewrite(delivery._queries, "due_window", "k.epoch = :epoch", ":epoch::bigint > 0")
    _rewrite(delivery._queries, "due_now", "k.epoch = r.epoch", "r.epoch > 0")
    _put(Worker, "_drop_senders", _never)
    _put(Worker, "_give_back_excess", _never)


def without_the_variant_lock() -> None:
    _rewrite(stock._queries, "lock_variants", "FOR NO KEY UPDATE OF v", "")


def without_the_compare_and_set_of_tokens() -> None:
    """The last one to write a pair wins."""
    mine = ":old_digest::bytea"
    _rewrite(
        lease._queries,
        "swap_tokens",
        f"tokens_digest IS NOT DISTINCT FROM {mine}",
        f"{mine} IS NOT DISTINCT FROM {mine}",
    )


def without_the_end_of_leases() -> None:
    _put(LeaseClock, "may_start", _always)


def without_taking_over() -> None:
    """Stores of a process that has expired stay its own."""
    expired = "w.renewed_at + l.lifetime_seconds * interval '1 second' < clock_timestamp()"
    _rewrite(lease._queries, "claim", expired, "false")


def without_confirmation_after_doubt() -> None:
    _put(policy, "_accepted", _accepted_for_good)


def _accepted_for_good(situation: policy.Situation, delays: policy.Delays) -> policy.ListingDecision:
    return policy.Deliver(None)


def without_doubt_at_takeover() -> None:
    """What the lost holder had in flight is forgotten."""
    _rewrite(
        lease._queries, "claim", "WHEN NOT h.stopping THEN clock_timestamp() + free.quiesce END\nFROM", "END\nFROM"
    )
    _rewrite(lease._queries, "claim", "CASE WHEN NOT h.stopping THEN clock_timestamp() + free.quiesce END)", "NULL)")


def without_telling_lost_from_unsent() -> None:
    """What was sent, and not answered, counts as surely not applied."""
    ask = HttpClient.request

    async def request(self: HttpClient, *given: Any, **named: Any) -> Any:
        exchange = await ask(self, *given, **named)
        if isinstance(exchange, NoAnswer):
            return NotSent(exchange.message, exchange.started_at, exchange.duration_ms)
        return exchange

    _put(HttpClient, "request", request)


def without_pacing() -> None:
    _put(Pacer, "take", _always)
    _put(Pacer, "next_at", lambda self, now: now)


def without_the_limit_of_applications() -> None:
    """Each store minds its own limit only."""

    async def take(self: Budgets, channel_app_id: int | None) -> float:
        return 0.0

    _put(Budgets, "take", take)


def without_the_busy_set() -> None:
    """A listing may have several calls in flight."""
    build: Callable[..., None] = Window.__init__

    def forgetful(self: Window, *given: Any, **named: Any) -> None:
        build(self, *given, **named)
        self.busy = _Forgetful()

    _put(Window, "__init__", forgetful)


class _Forgetful(set[int]):
    def update(self, *others: Iterable[int]) -> None:
        """Nothing is ever busy."""


def without_durability() -> None:
    """Commits are answered before they are on the disk."""
    connect = Pool._connect

    async def careless(self: Pool, dsn: str | None = None, **options: Any) -> Any:
        options["server_settings"] = options["server_settings"] | {"synchronous_commit": "off"}
        return await connect(self, dsn, **options)

    _put(Pool, "_connect", careless)


def without_waiting_for_the_commit() -> None:
    """Callers are answered when everything is written, and it is committed a moment later."""
    transact = GroupCommit._transact
    answer: ContextVar[Callable[[Sequence[Any]], None]] = ContextVar("answer")  # of the group of this task

    async def remember(self: GroupCommit, group: Sequence[Any], lock_timeout_ms: int) -> Any:
        answer.set(partial(self._answer, group))
        return await transact(self, group, lock_timeout_ms)

    async def accept_and_answer(*given: Any) -> Any:
        results = await accepting.accept(*given)
        answer.get()(results)
        await asyncio.sleep(AHEAD_OF_COMMIT_SECONDS)
        return results

    _put(GroupCommit, "_transact", remember)
    _put(group_commit, "accept", accept_and_answer)


def without_looking_keys_up() -> None:
    """An Idempotency-Key that comes again is a new update."""

    async def forget(*given: Any) -> None:
        return

    _put(accepting, "_claim_keys", forget)


def without_distrust_of_the_clock() -> None:
    """A wait that is far ahead is waited for."""
    far = "now() + :wait_seconds_max * interval '1 second'"
    for name in ("stores_with_work", "release_waits"):
        _rewrite(delivery._queries, name, far, f"greatest('infinity', {far})")


def without_pausing_what_cannot_be_opened() -> None:
    """A store whose credentials cannot be read is tried again for ever."""

    async def give_back(self: Worker, held: Any, reason: str) -> None:
        await self._storage.give_back(self._worker_id, [held.store_id])

    _put(Worker, "_pause_store", give_back)


def without_telling_once() -> None:
    tell = Worker._tell

    def again(self: Worker, *, away: bool, error: str = "") -> None:
        self._away = False
        tell(self, away=away, error=error)

    _put(Worker, "_tell", again)


def without_pausing_dead_authorisations() -> None:
    """A store that no longer lets us in is tried again for ever."""

    async def shrug(self: StoreSender, used: Any) -> None:
        return

    _put(StoreSender, "_refresh", shrug)


def with_unclear_answers_taken_for_success() -> None:
    _reclassify({InDoubt: lambda outcome: Accepted()})


def with_unclear_answers_taken_for_refusals() -> None:
    _reclassify({InDoubt: lambda outcome: Rejected(outcome.message)})


def with_haste_taken_for_refusals() -> None:
    _reclassify({Throttled: lambda outcome: Rejected(outcome.message)})


def with_silence_taken_for_refusals() -> None:
    """Who cannot be reached is given up on."""
    _reclassify(dict.fromkeys((Unavailable, InDoubt), lambda outcome: Rejected(outcome.message)))


def _reclassify(others: Mapping[type, Callable[[Any], Outcome]]) -> None:
    decide = policy.decide

    def otherwise(outcome: Outcome, situation: policy.Situation, delays: policy.Delays) -> policy.Decision:
        other = others.get(type(outcome))
        return decide(outcome if other is None else other(outcome), situation, delays)

    _put(judge, "decide", otherwise)


def without_giving_leases_back() -> None:
    """Who is told to stop just goes."""

    async def go(self: Worker, seconds: float) -> None:
        for sender, _ in self._senders.values():
            sender.abandon()

    _put(Worker, "_leave", go)


def _never(self: object, *given: object, **named: object) -> None:
    return


def _always(self: object, *given: object) -> bool:
    return True


def _put(owner: object, name: str, value: object) -> None:
    """In place of what is there: a name that is gone is a test that tests nothing any more."""
    if not hasattr(owner, name):
        raise LookupError(f"{owner} has no {name}")
    setattr(owner, name, value)


def _rewrite(queries: Queries, name: str, old: str, new: str) -> None:
    query = queries[name]
    for place, parameter in enumerate(query.parameters, 1):
        old, new = (text.replace(f":{parameter}", f"${place}") for text in (old, new))
    if old not in query.sql:
        raise LookupError(f"{name} has no {old!r}: {query.sql}")
    query.sql = query.sql.replace(old, new)
    # PostgreSQL would refuse it, and a worker that ends at once is noticed for another reason.
    if unused := [place for place in range(1, len(query.parameters) + 1) if f"${place}" not in query.sql]:
        raise LookupError(f"{name} does not use its parameters {unused} any more")


PROTECTIONS: Mapping[str, Callable[[], None]] = {
    name: value for name, value in list(globals().items()) if name.startswith(("without_", "with_"))
}
