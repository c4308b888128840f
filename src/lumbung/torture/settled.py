"""Invariants 1, 6, 7 and 9 from the hub's own words: its history, as partners read it, and its tables."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lumbung.client import PartnerClient
from lumbung.db.inspection import Effect, Unsettled
from lumbung.torture.clearness import Clearness
from lumbung.torture.evidence import Call
from lumbung.torture.findings import Audit
from lumbung.torture.journal import Journal, Key
from lumbung.torture.world import Place, TenantPlan, World

PAGE = 1000
TRIES = 5
SHOWN_MAX = 5
DEAD = "dead-token"
TRADE = re.compile(r"/auth/|/accounts/")  # where the sandbox's marketplaces trade tokens


@dataclass(frozen=True, slots=True)
class AtRest:
    """What the database says when nothing happens any more. `paused`: by (channel, account), why.
    `failed_in_calm`: of items that were made while nothing went wrong and ended without success, a message."""

    unsettled: tuple[Unsettled, ...]
    parked: Mapping[Place, str]
    paused: Mapping[tuple[str, str], str]
    open_items: int
    miscounted: int
    effects: Mapping[Key, Effect]
    failed_in_calm: Mapping[Place, str]


def codes_of(tenant: TenantPlan, url: str) -> tuple[int, set[str]]:
    """What a partner reads in the history: the total that it tells, and every transaction code. Blocks."""
    client = PartnerClient(url, tenant.partner_id, tenant.secret)
    codes: set[str] = set()
    total = -1
    try:
        while len(codes) != total:
            page = _page(client, len(codes))
            total = page["total_record"]
            found = {record["transaction_code"] for record in page["data"]}
            if not found - codes:
                break
            codes |= found
    finally:
        client.close()
    return total, codes


def _page(client: PartnerClient, offset: int) -> dict[str, Any]:
    for left in reversed(range(TRIES)):
        try:
            answer = client.history(limit=PAGE, offset=offset)
        except (OSError, http.client.HTTPException):
            if not left:
                raise
        else:
            if answer.status == 200:
                found: dict[str, Any] = answer.json
                return found
        time.sleep(0.5)
    raise OSError("the history is not answered")


def check_history(audit: Audit, journal: Journal, tenant: TenantPlan, total: int, codes: set[str]) -> int:
    """Returns how many acknowledged updates are lost."""
    mine = [one for one in journal.acknowledged if one.key[0] == tenant.name]
    audit.look(1, len(mine))
    lost = [one for one in mine if one.code not in codes]
    for one in lost[:SHOWN_MAX]:
        audit.broken(1, f"{one.code} of {tenant.name} is not in the history ({len(lost)} lost)", str(one))
    if total != len(codes):
        audit.broken(1, f"the history of {tenant.name} tells {total} records and has {len(codes)}")
    return len(lost)


def check_effects(audit: Audit, journal: Journal, at_rest: AtRest) -> None:
    """Each update has one effect however often it was sent: as many as there are numbers, each of them newer."""
    codes: dict[str, object] = {}
    for one in journal.acknowledged:
        audit.look(7)
        if one.again not in {None, one.code}:
            audit.broken(7, f"its repetition got {one.again}", str(one))
        if one.code in codes:
            audit.broken(7, f"two updates got the code {one.code}", str(one), str(codes[one.code]))
        codes[one.code] = one
    for key, newest in journal.newest().items():
        effect = at_rest.effects.get(key, Effect(0, 0))
        if (effect.recorded, effect.applied) != (newest, newest):
            told = f"{effect.recorded} are recorded, {effect.applied} took effect"
            audit.broken(7, f"{key} was updated {newest} times, and {told}")


def check_settled(audit: Audit, world: World, at_rest: AtRest) -> None:
    """Nothing is under way any more but what is poisoned."""
    audit.look(6, sum(len(tenant.skus) * len(tenant.stores) for tenant in world.tenants))
    for one in at_rest.unsettled:
        if one.place not in world.poisoned:
            audit.broken(6, f"{_named(one.place)} does not come to rest: {one.state}", str(one))
    for place, reason in at_rest.parked.items():
        if place not in world.poisoned:
            audit.broken(6, f"{_named(place)} is parked, though nothing is wrong with it: {reason}")
    if at_rest.open_items:
        audit.broken(6, f"{at_rest.open_items} items have not ended")
    if at_rest.miscounted:
        audit.broken(6, f"{at_rest.miscounted} updates miscount their open items")


def check_calm(audit: Audit, world: World, at_rest: AtRest) -> None:
    """While nothing goes wrong what is healthy ends with a delivery, not for want of time."""
    for place, message in at_rest.failed_in_calm.items():
        if place not in world.poisoned and not any(
            store.poison and (store.channel, store.code) == place[:2] for store in world.stores
        ):
            audit.broken(6, f"{_named(place)}: an item failed though nothing was wrong: {message}")


def check_mended(audit: Audit, journal: Journal, calls: Iterable[Call], clearness: Clearness) -> None:
    """A store waits for a new authorisation only when its seller withdrew it, or when a trade's outcome was unclear
    since it had one: who does not get the answer to a trade has lost the pair, and no later one."""
    unclear = [call for call in calls if TRADE.search(call.path) and not clearness.is_clear(call)]
    withdrawn = [(account, deed.began_at) for deed in journal.deeds if deed.name == DEAD for account in deed.stores]
    authorised_at: dict[tuple[str, str], float] = {}
    for mended in journal.mended:
        channel, store = mended.account
        since = authorised_at.get(mended.account, 0.0)
        authorised_at[mended.account] = mended.at
        audit.look(9)
        lost = any(
            one.channel == channel and one.store in {store, ""} and since < one.ended_at and one.at < mended.at
            for one in unclear
        )
        again = any(account == mended.account and since < at < mended.at for account, at in withdrawn)
        if not again and not lost:
            audit.broken(9, f"{channel} {store} was paused, though nothing was wrong with it", str(mended))
    for account in {account for account, _ in withdrawn} - {mended.account for mended in journal.mended}:
        audit.broken(9, f"{' '.join(account)}: its authorisation is dead, and it was never paused")


def check_poison(audit: Audit, world: World, at_rest: AtRest) -> None:
    """Who cannot be served waits for a person, with a reason; nobody else does."""
    for store in world.stores:
        account = (store.channel, store.code)
        reason = at_rest.paused.get(account)
        audit.look(9, bool(store.poison))
        if store.poison and not reason:
            audit.broken(9, f"{store.channel} {store.code} ({store.poison}) is not paused with a reason")
        if not store.poison and reason is not None:
            audit.broken(9, f"{store.channel} {store.code} is paused, though nothing is wrong with it: {reason}")
    told = {one.place for one in at_rest.unsettled} | at_rest.parked.keys()
    for place, why in world.poisoned.items():
        audit.look(9)
        if place not in told and (place[0], place[1]) not in at_rest.paused:
            audit.broken(9, f"{_named(place)} ({why}) is taken for delivered")


def _named(place: Place) -> str:
    channel, store, sku = place
    return f"{sku} in {channel} {store}"
