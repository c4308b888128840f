"""What Shopee shows of a listing: the seller's own stock, which is what a stock update writes.

    an item without variations    get_item_base_info, up to 50 items a call
    a variation                   get_model_list, one item a call

Source: marketplaces.md section 1.5 [D]; what comes back is what was written [C]. Stock that Shopee keeps for the
seller is not counted, nor are locations that the listing's own do not name: nobody writes those from here. Where none
is left, nothing was read: 0 would be a number that Shopee has not said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from lumbung.channels.base import (
    Accepted,
    InDoubt,
    Misconfigured,
    Observed,
    Outcome,
    Push,
    ReadRow,
    Rejected,
    Scope,
    Unavailable,
)
from lumbung.channels.call import Answered
from lumbung.channels.http import NoAnswer, NotSent
from lumbung.channels.shopee import errors, wire

# More than an item can have, or than was asked for.
ENTRIES_MAX = 1000

# Such an item can still be asked for during 90 days, but it is gone for good.
_DELETED = frozenset({"SELLER_DELETE", "SHOPEE_DELETE"})

Shown = Mapping[int, wire.Item | wire.Model]
"""Items or models by their id."""

Asked = Sequence[tuple[Push, wire.RemoteVariant]]
"""The listings of one reading call, all of one read_key."""


def seen(came: Answered | NotSent | NoAnswer, asked: Asked) -> list[ReadRow]:
    """Exactly one row for each listing, in order."""
    outcome = errors.outcome(came)
    if isinstance(outcome, Accepted):
        shown = _shown(came, of_variations=asked[0][1].variation_id > 0)
        if shown is not None:
            return [ReadRow(push.listing_id, _one(shown, variant, push)) for push, variant in asked]
        outcome = InDoubt("Shopee's answer cannot be read")
    instead = _instead(outcome, items=len({variant.item_id for _, variant in asked}))
    return [ReadRow(push.listing_id, instead) for push, _ in asked]


def _instead(outcome: Outcome, *, items: int) -> Outcome:
    """Reading changes nothing, so an unclear answer leaves no doubt behind. A refusal of several items may be the fault
    of any of them, and is no verdict on the others."""
    match outcome:
        case InDoubt(message=message):
            return Unavailable(message)
        case Rejected(message=message) | Misconfigured(message=message, scope=Scope.LISTING) if items > 1:
            return Unavailable(f"One of {items} items cannot be read: {message}")
        case _:
            return outcome


def _shown(came: Answered | NotSent | NoAnswer, *, of_variations: bool) -> Shown | None:
    """None when the answer's list cannot be read; a list that is left out is empty."""
    answer = wire.envelope(came.text.encode()) if isinstance(came, Answered) else None
    if answer is None:
        return None
    if of_variations:
        models = wire.decode(answer.response, wire.Models)
        if models is None or len(models.model or ()) > ENTRIES_MAX:
            return None
        return {model.model_id: model for model in _read(models.model, wire.Model)}
    items = wire.decode(answer.response, wire.Items)
    if items is None or len(items.item_list or ()) > ENTRIES_MAX:
        return None
    return {item.item_id: item for item in _read(items.item_list, wire.Item)}


T = TypeVar("T")


def _read(entries: Sequence[msgspec.Raw] | None, kind: type[T]) -> list[T]:
    """An entry that cannot be read costs only the listing that it is about."""
    return [entry for entry in (wire.decode(raw, kind) for raw in entries or ()) if entry is not None]


def _one(shown: Shown, variant: wire.RemoteVariant, push: Push) -> Observed | Rejected:
    if variant.variation_id:
        model = shown.get(variant.variation_id)
        if model is None:
            return Rejected(f"Item {variant.item_id} has no variation {variant.variation_id} on Shopee")
        return _stock(model.stock_info_v2, push)
    item = shown.get(variant.item_id)
    if item is None:
        return Rejected(f"Shopee does not know item {variant.item_id}")
    if isinstance(item, wire.Item) and item.item_status in _DELETED:
        return Rejected(f"Item {variant.item_id} is deleted on Shopee")
    if isinstance(item, wire.Item) and item.has_model:
        return Rejected(f"Item {variant.item_id} has variations on Shopee: each is a listing of its own")
    return _stock(item.stock_info_v2, push)


def _stock(info: wire.StockInfo | None, push: Push) -> Observed | Rejected:
    listed = () if info is None else info.seller_stock or ()
    own = [at.stock for at in listed if not push.locations or at.location_id in push.locations]
    return Observed(sum(own)) if own else Rejected("Shopee shows no stock that can be read")
