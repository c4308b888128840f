"""One stock update: what is sent for the listings of an item, and what the answer says of each.

The two lists of an answer are read first, whatever else it says: they stand in answers that succeed and in answers that
fail. A listing is Accepted only when all that was sent for it comes back, with the units that were sent. Lists that are
longer than any update's are no answer to one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from lumbung.channels.base import (
    Accepted,
    Deferred,
    Floor,
    InDoubt,
    Misconfigured,
    Outcome,
    Push,
    Rejected,
    Row,
    Scope,
    Throttled,
    Unavailable,
)
from lumbung.channels.call import Answered
from lumbung.channels.http import NoAnswer, NotSent
from lumbung.channels.locations import spread
from lumbung.channels.shopee import errors, wire
from lumbung.channels.shopee.manifest import MANIFEST
from lumbung.channels.text import json_text, words


@dataclass(frozen=True, slots=True)
class Line:
    """One listing of an update; `units` by location, under "" where stock is not kept per location."""

    listing_id: int
    model_id: int
    units: Mapping[str, int]

    @classmethod
    def of(cls, push: Push, model_id: int) -> Line:
        """Raises ValueError when the push's locations are more than its quantity (a bug of the caller's)."""
        return cls(push.listing_id, model_id, spread(push) or {"": push.quantity})

    @property
    def body(self) -> wire.ModelStock:
        stock = (wire.SellerStock(location_id=location, stock=units) for location, units in self.units.items())
        return wire.ModelStock(self.model_id, tuple(stock))


@dataclass(frozen=True, slots=True)
class Said:
    """What became of the listings of one call; `as_a_whole` as in Attempt."""

    rows: tuple[Row, ...]
    as_a_whole: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of a list as it came, and read."""

    text: str
    read: wire.Taken | wire.Failed | None


def body(item_id: int, lines: Sequence[Line]) -> bytes:
    return msgspec.json.encode(wire.UpdateStock(item_id, tuple(line.body for line in lines)))


def said(came: Answered | NotSent | NoAnswer, lines: Sequence[Line]) -> Said:
    """Exactly one row for each line, in order."""
    if isinstance(came, Answered):
        return _answered(came, lines)
    outcome = errors.outcome(came)
    return Said(tuple(Row(line.listing_id, outcome) for line in lines))


def _answered(answered: Answered, lines: Sequence[Line]) -> Said:
    answer = wire.envelope(answered.text.encode())
    whole = errors.meaning(answered, answer)
    if answer is None or answered.status >= 500 or answered.status == 429:
        return _for_all(whole, lines, answered.text)
    lists = wire.lists(answer)
    if lists is None or _longest(lists) > _entries_max(lines):
        return _for_all(errors.Meaning(InDoubt("Shopee's lists cannot be read")), lines, answered.text)
    entries = _entries(lists)
    if not entries and not isinstance(whole.outcome, Accepted):
        return _for_all(whole, lines, answered.text)
    by_model = _by_model(entries)
    reasons = _Reasons(answered, answer, any(isinstance(entry.read, wire.Taken) for entry in entries))
    return Said(tuple(_row(line, by_model.get(line.model_id, ()), whole.outcome, reasons) for line in lines))


def _for_all(meaning: errors.Meaning, lines: Sequence[Line], text: str) -> Said:
    """Shopee has answered for the call. What may be the fault of one of several listings is each one's own only when it
    is alone. A floor that was taken for everyone's would put up what the others have not got."""
    outcome = meaning.outcome
    as_a_whole = len(lines) > 1 and not meaning.everyone and _may_be_one_listings(outcome)
    if as_a_whole and isinstance(outcome, Floor):
        outcome = Rejected(outcome.message)
    answer = json_text(text)
    return Said(tuple(Row(line.listing_id, outcome, answer) for line in lines), as_a_whole)


def _may_be_one_listings(outcome: Outcome) -> bool:
    match outcome:
        case Misconfigured(scope=scope):
            return scope is Scope.LISTING
        case Rejected() | Floor() | Deferred():
            return True
        case _:
            return False


def _entries(lists: wire.Lists) -> list[_Entry]:
    """An entry that cannot be read tells of no listing, so that the listing it is about is in doubt."""
    taken = [_Entry(_text(raw), wire.decode(raw, wire.Taken)) for raw in lists.success_list or ()]
    failed = [_Entry(_text(raw), wire.decode(raw, wire.Failed)) for raw in lists.failure_list or ()]
    return [*taken, *failed]


def _text(raw: msgspec.Raw) -> str:
    return bytes(raw).decode()


def _longest(lists: wire.Lists) -> int:
    return max(len(lists.success_list or ()), len(lists.failure_list or ()))


def _entries_max(lines: Sequence[Line]) -> int:
    """Entries of a list: one for every variation that fits into a call, in every location that was sent."""
    return MANIFEST.batch_max * len({location for line in lines for location in line.units})


def _by_model(entries: Sequence[_Entry]) -> Mapping[int, Sequence[_Entry]]:
    found: dict[int, list[_Entry]] = {}
    for entry in entries:
        if entry.read is not None:
            found.setdefault(entry.read.model_id, []).append(entry)
    return found


class _Reasons:
    """What the reasons of one answer mean. Each is looked up once: most are the same."""

    def __init__(self, answered: Answered, answer: wire.Envelope, others_taken: bool):
        self._answered = answered
        self._answer = answer
        self._others_taken = others_taken
        self._known: dict[str, Outcome] = {}

    def outcome(self, failed: wire.Failed) -> Outcome:
        reason = words(failed.failed_reason or "")
        if reason not in self._known:
            self._known[reason] = errors.of_a_listing(
                self._answered, self._answer, reason, others_taken=self._others_taken
            )
        return self._known[reason]

    @property
    def under_an_error(self) -> bool:
        return self._answer.error != ""


def _row(line: Line, entries: Sequence[_Entry], whole: Outcome, reasons: _Reasons) -> Row:
    failed = [entry.read for entry in entries if isinstance(entry.read, wire.Failed)]
    taken = [entry.read for entry in entries if isinstance(entry.read, wire.Taken)]
    texts = [entry.text for entry in entries]
    kept = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]" if texts else ""
    outcome = _failure(failed, taken, line, reasons) if failed else _success(taken, line, whole, reasons)
    return Row(line.listing_id, outcome, json_text(kept))


def _success(taken: Sequence[wire.Taken], line: Line, whole: Outcome, reasons: _Reasons) -> Outcome:
    if not taken:
        return InDoubt("Shopee's answer does not mention the listing")
    came = _came(taken, line)
    if came != line.units:
        return InDoubt(f"Shopee's answer contradicts what was sent: {_spoken(came)} instead of {_spoken(line.units)}")
    # An update that failed as a whole names those that were taken all the same; but what claims success under another
    # status than 200 is none.
    return whole if isinstance(whole, InDoubt) and not reasons.under_an_error else Accepted()


def _failure(failed: Sequence[wire.Failed], taken: Sequence[wire.Taken], line: Line, reasons: _Reasons) -> Outcome:
    """The first reason that leaves doubt, else the first. Of several locations some may have been taken."""
    if taken and not _came(taken, line).items() < line.units.items():
        return InDoubt("Shopee's answer contradicts itself: taken and refused")
    outcomes = [reasons.outcome(entry) for entry in failed]
    outcome = next((each for each in outcomes if isinstance(each, InDoubt)), outcomes[0])
    if taken and isinstance(outcome, Throttled | Unavailable):
        return InDoubt(f"Some of it was taken: {outcome.message}")
    return outcome


def _came(taken: Sequence[wire.Taken], line: Line) -> dict[str, int | None]:
    """The units that came back by location; None where they are not told, or told twice and not the same. A shop that
    keeps stock at one place may name that place."""
    if len(taken) == 1 and set(line.units) == {""}:
        return {"": taken[0].stock}
    came: dict[str, int | None] = {}
    for entry in taken:
        location = entry.location_id or ""
        came[location] = entry.stock if came.get(location, entry.stock) == entry.stock else None
    return came


def _spoken(units: Mapping[str, int | None]) -> str:
    return words(", ".join(f"{location} {count}".strip() for location, count in sorted(units.items())))
