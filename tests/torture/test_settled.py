"""What the hub says of itself at rest, held against what was sent."""

from __future__ import annotations

from dataclasses import replace

from lumbung.db.inspection import Effect, Unsettled
from lumbung.torture import settled
from lumbung.torture.evidence import Call
from lumbung.torture.findings import Audit
from lumbung.torture.journal import Deed, Mended
from lumbung.torture.settled import AtRest
from lumbung.torture.world import World
from tests.torture.scene import STORE, TENANT, WORLD, acknowledged, clearness, journal

QUIET = AtRest((), {}, {}, 0, 0, {}, {})
PLACE = ("blib", "TOA-1", "sku1")
STUCK = Unsettled(PLACE, "waiting", "push", "backoff", "Unavailable", "refused", 7)
KEY = ("Toko 1", "sku1", "default")


def invariants(audit: Audit) -> list[int]:
    return [finding.invariant for finding in audit.findings]


def test_a_history_with_every_code_breaks_nothing() -> None:
    audit, told = Audit(), journal(acknowledged(1), acknowledged(2))
    settled.check_history(audit, told, TENANT, 2, {one.code for one in told.acknowledged})
    assert (invariants(audit), audit.looked_at) == ([], {1: 2})


def test_an_acknowledged_update_without_a_record_is_lost() -> None:
    audit = Audit()
    settled.check_history(audit, journal(acknowledged(1), acknowledged(2)), TENANT, 1, {acknowledged(1).code})
    assert invariants(audit) == [1]
    assert acknowledged(2).code in audit.findings[0].message


def test_a_total_that_is_not_the_number_of_records_is_told() -> None:
    audit, told = Audit(), journal(acknowledged(1))
    settled.check_history(audit, told, TENANT, 2, {acknowledged(1).code})
    assert invariants(audit) == [1]


def test_as_many_effects_as_updates_break_nothing() -> None:
    audit, told = Audit(), journal(acknowledged(1, again=acknowledged(1).code), acknowledged(2))
    settled.check_effects(audit, told, replace(QUIET, effects={KEY: Effect(2, 2)}))
    assert (invariants(audit), audit.looked_at) == ([], {7: 2})


def test_a_repetition_with_another_code_is_told() -> None:
    audit, told = Audit(), journal(acknowledged(1, again="another"))
    settled.check_effects(audit, told, replace(QUIET, effects={KEY: Effect(1, 1)}))
    assert invariants(audit) == [7]


def test_an_update_that_took_effect_twice_or_never_is_told() -> None:
    for recorded in (0, 2):
        audit = Audit()
        settled.check_effects(audit, journal(acknowledged(1)), replace(QUIET, effects={KEY: Effect(recorded, 1)}))
        assert invariants(audit) == [7]


def test_a_code_of_two_updates_is_told() -> None:
    audit, first = Audit(), acknowledged(1)
    told = journal(first, replace(acknowledged(2), code=first.code))
    settled.check_effects(audit, told, replace(QUIET, effects={KEY: Effect(2, 2)}))
    assert invariants(audit) == [7]


def test_what_does_not_come_to_rest_is_told() -> None:
    audit = Audit()
    settled.check_settled(audit, WORLD, AtRest((STUCK,), {("blib", "TOA-1", "sku2"): "unknown"}, {}, 3, 1, {}, {}))
    assert invariants(audit) == [6, 6, 6, 6]


def test_an_item_that_failed_while_nothing_went_wrong_is_told_unless_it_is_poisoned() -> None:
    found = replace(QUIET, failed_in_calm={PLACE: "out of time"})
    sealed = World((replace(TENANT, stores=(replace(STORE, poison="sealed"),)),))
    for world, broken in ((WORLD, [6]), (World((TENANT,), {PLACE: "failing"}), []), (sealed, [])):
        audit = Audit()
        settled.check_calm(audit, world, found)
        assert invariants(audit) == broken


def test_what_is_poisoned_need_not() -> None:
    audit = Audit()
    world = World((TENANT,), {PLACE: "failing", ("blib", "TOA-1", "sku2"): "unreadable"})
    found = AtRest((STUCK,), {("blib", "TOA-1", "sku2"): "unreadable"}, {}, 0, 0, {}, {})
    settled.check_settled(audit, world, found)
    settled.check_poison(audit, world, found)
    assert (invariants(audit), audit.looked_at[9]) == ([], 2)


def test_poison_that_is_taken_for_delivered_is_told() -> None:
    audit = Audit()
    settled.check_poison(audit, World((TENANT,), {PLACE: "failing"}), QUIET)
    assert invariants(audit) == [9]


def test_a_store_that_cannot_be_served_must_be_paused_with_a_reason_and_no_other_may_be() -> None:
    sealed = World((replace(TENANT, stores=(replace(STORE, poison="sealed"),)),))
    reason = {("blib", "TOA-1"): "The credentials cannot be decrypted"}
    for world, paused, broken in (
        (sealed, reason, []),
        (sealed, {}, [9]),
        (WORLD, reason, [9]),
        (WORLD, {}, []),
    ):
        audit = Audit()
        settled.check_poison(audit, world, replace(QUIET, paused=paused))
        assert invariants(audit) == broken


SHOP = ("shpe", "90001")
TRADE = Call(50.0, *SHOP, "127.0.1.1", 1, (), "/shpe/api/v2/auth/access_token/get", 200, 5.0, "")
WITHDRAWN = Deed("dead-token", 40.0, 40.1, clear=True, stores=frozenset({SHOP}))


def mended(*deeds: Deed, calls: tuple[Call, ...] = (), dead: bool = True) -> list[int]:
    told = journal(deeds=deeds)
    told.mended += [Mended(SHOP, 55.0, "Invalid refresh_token")] if dead else []
    audit = Audit()
    settled.check_mended(audit, told, calls, clearness(*deeds))
    return invariants(audit)


def test_a_store_whose_seller_withdrew_the_authorisation_must_be_paused() -> None:
    assert mended(WITHDRAWN) == []
    assert mended(WITHDRAWN, dead=False) == [9]


def test_an_authorisation_that_was_withdrawn_excuses_one_pause_and_no_later_one() -> None:
    told = journal(deeds=(WITHDRAWN,))
    told.mended += [Mended(SHOP, 55.0, "Invalid refresh_token"), Mended(SHOP, 75.0, "Invalid refresh_token")]
    audit = Audit()
    settled.check_mended(audit, told, [], clearness())
    assert [(finding.invariant, "at=75.0" in finding.evidence[0]) for finding in audit.findings] == [(9, True)]


def test_a_store_that_lost_its_authorisation_must_have_lost_the_answer_to_a_trade() -> None:
    killed = Deed("kill", 51.0, 54.0, workers=frozenset({"127.0.1.1"}))
    assert mended(calls=(TRADE,)) == [9]
    assert mended(killed, calls=(TRADE,)) == []
    assert mended(killed) == [9]


def test_a_trade_that_was_lost_excuses_one_pause_and_no_later_one() -> None:
    killed = Deed("kill", 51.0, 54.0, workers=frozenset({"127.0.1.1"}))
    told = journal(deeds=(killed,))
    told.mended += [Mended(SHOP, 55.0, "Invalid refresh_token"), Mended(SHOP, 75.0, "Invalid refresh_token")]
    audit = Audit()
    settled.check_mended(audit, told, [TRADE], clearness(killed))
    assert [(finding.invariant, "at=75.0" in finding.evidence[0]) for finding in audit.findings] == [(9, True)]
