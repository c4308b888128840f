"""What a seed stands for: a small world, what happens to it, and how likely."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from lumbung.settings import Settings
from tests.simulation.memory import Faults

CHANNELS = ("plain", "batch", "feed", "token")
MISFORTUNES = ("restart", "deaf", "pause", "floor", "lock", "ban", "poison", "expire")
DISASTERS = ("kill", "freeze", "away", "revoke", "jump")


@dataclass(frozen=True, slots=True)
class StoreSpec:
    id: int
    tenant_id: int
    channel: str
    rate: float
    burst: int
    compares: bool
    app_id: int | None


@dataclass(frozen=True, slots=True)
class Scenario:
    """`fair`: nothing fails. `clear`: what fails is clear. `listings`: (listing, variant, store). `deeds`: what the
    nemesis may do. Seconds of virtual time."""

    seed: int
    fair: bool
    clear: bool
    stores: tuple[StoreSpec, ...]
    listings: tuple[tuple[int, int, int], ...]
    workers: int
    updates: int
    seconds: float
    ordered: bool
    customers: float
    call_faults: dict[str, float]
    refresh_unavailable: float
    handles_forgotten: float
    wake_ups_lost: float
    link_faults: Faults
    deeds: tuple[str, ...]
    deeds_every_seconds: float
    budget: tuple[float, int] | None
    settings: Settings = field(repr=False)


def scenario(seed: int) -> Scenario:
    dice = Random(f"scenario {seed}")
    kind = dice.choices(("fair", "clear", "stormy"), (15, 15, 70))[0]
    clear, fair = kind != "stormy", kind == "fair"
    stores = tuple(_store(dice, n) for n in range(1, dice.randint(1, 4) + 1))
    return Scenario(
        seed=seed,
        fair=fair,
        clear=clear,
        stores=stores,
        listings=_listings(dice, stores),
        workers=dice.randint(1, 3),
        updates=dice.randint(10, 60 if fair else 40),
        seconds=dice.uniform(10, 40),
        ordered=dice.random() < 0.6,
        customers=0.0 if dice.random() < 0.5 else dice.uniform(0.1, 1.0),
        call_faults={} if fair else _call_faults(dice, clear=clear),
        refresh_unavailable=0.0 if fair else 0.2 * dice.random(),
        handles_forgotten=0.0 if clear else 0.1,
        wake_ups_lost=0.0 if fair else dice.choice((0.0, 0.2, 1.0)),
        link_faults=_link_faults(dice) if not clear and dice.random() < 0.6 else Faults(),
        deeds=_deeds(dice, fair=fair, clear=clear),
        deeds_every_seconds=dice.uniform(2, 12),
        budget=(dice.uniform(3, 10), dice.randint(1, 8)) if any(store.app_id for store in stores) else None,
        settings=_settings(dice),
    )


def _store(dice: Random, number: int) -> StoreSpec:
    channel = dice.choice(CHANNELS)
    return StoreSpec(
        id=number,
        tenant_id=dice.randint(1, 3),
        channel=channel,
        rate=dice.choice((2.0, 5.0, 20.0)),
        burst=dice.randint(1, 5),
        compares=channel == "plain" and dice.random() < 0.3,
        app_id=1 if dice.random() < 0.25 else None,
    )


def _listings(dice: Random, stores: tuple[StoreSpec, ...]) -> tuple[tuple[int, int, int], ...]:
    """Variants are numbered by tenant, and listed in one or several of its stores."""
    count = dice.randint(max(1, len(stores) // 2), 8)
    made = []
    for listing_id in range(1, count + 1):
        store = dice.choice(stores)
        made.append((listing_id, 10 * store.tenant_id + dice.randint(1, 3), store.id))
    return tuple(made)


def _call_faults(dice: Random, *, clear: bool) -> dict[str, float]:
    names = ["refused", "throttled"] if clear else ["refused", "throttled", "lost", "nothing", "late"]
    chosen = [name for name in names if dice.random() < 0.6]
    return {name: 0.02 + 0.2 * dice.random() for name in chosen}


def _link_faults(dice: Random) -> Faults:
    refused, answer_lost, slow, lock_busy = (0.05 * dice.random() for _ in range(4))
    return Faults(refused, answer_lost, slow, lock_busy)


def _deeds(dice: Random, *, fair: bool, clear: bool) -> tuple[str, ...]:
    if fair:
        return ()
    names = MISFORTUNES if clear else MISFORTUNES + DISASTERS
    return tuple(name for name in names if dice.random() < 0.5)


def _settings(dice: Random) -> Settings:
    """The same proportions as in earnest, but shorter, so that a run is over in a minute or two."""
    return Settings(
        lease_seconds=6.0,
        lease_renew_seconds=2.0,
        poll_seconds=2.0,
        backoff_first_seconds=0.5,
        backoff_max_seconds=6.0,
        throttle_default_seconds=2.0,
        throttle_seconds_min=0.5,
        throttle_seconds_max=10.0,
        defer_default_seconds=3.0,
        defer_seconds_max=6.0,
        floor_retry_seconds=4.0,
        submitted_check_seconds_max=3.0,
        submitted_seconds_max=8.0,
        quiesce_seconds_max=20.0,
        storm_rejections=dice.choice((2, 3, 50)),
        store_idle_seconds=dice.choice((5.0, 600.0)),
        park_retry_seconds=dice.choice((5.0, 12.0)),
        breaker_failures=3,
        breaker_probe_seconds=1.0,
        breaker_probe_seconds_max=4.0,
        stop_seconds=10.0,
        token_refresh_seconds_min=2.0,
        calls_in_flight_max=dice.choice((1, 2, 256)),
        record_rows_max=dice.choice((2, 1000)),
        window_listings_max=dice.choice((1, 3, 200)),
    )
