"""A store's pair of tokens: what Shopee answers when a code or an older pair is traded for one.

A refresh token works once. So a pair that has come is kept whatever else the answer says, but for an error and for
another shop's id, and an answer that is not clear is InDoubt: the old one may be used up. Source: marketplaces.md
section 1.3 [D].

These answers are flat, and they bring secrets, perhaps twice: of their text only what is known to hold none is kept.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from lumbung.channels.base import (
    CallRecord,
    InDoubt,
    Misconfigured,
    Refreshed,
    Throttled,
    Tokens,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.call import Answered, Called
from lumbung.channels.http import NoAnswer, NotSent
from lumbung.channels.redaction import redact
from lumbung.channels.shopee import errors, wire
from lumbung.channels.text import strings_under

ACCESS_LIFE = timedelta(hours=4)
REFRESH_LIFE = timedelta(days=30)

# What is larger is a time, not a duration: one sample of the documentation shows a time.
_DURATION_SECONDS_MAX = 1_000_000_000
_TIME_SECONDS_MAX = 4_000_000_000

# On these two calls, and only here, error_auth means that the refresh token is dead [D].
_DEAD_CODES = errors.DEAD_AUTHORISATION_CODES | {
    "error_auth",
    "error_param",
    "invalid_code",
    "invalid_shop_id",
    "invalid_main_acount_id",
}
_OPEN_FIELDS = frozenset({"error", "message", "warning", "request_id", "expire_in", "partner_id", "shop_id"})
_SECRET_FIELDS = frozenset({"access_token", "refresh_token"})
_NOT_KEPT = "(not kept: it may hold tokens)"


def traded(called: Called, shop_id: int) -> Refreshed:
    """What came of the trade, and its record without a token in it."""
    match called.came:
        case NotSent(message):
            return Refreshed(Unavailable(message), (called.record,))
        case NoAnswer(message):
            return Refreshed(InDoubt(message), (called.record,))
        case Answered() as answered:
            tokens = strings_under(called.body, lambda name: "token" in name.lower())
            known = replace(answered, text=redact(answered.text, tokens))
            result = _result(known, wire.decode(called.body, wire.Pair), shop_id)
            return Refreshed(result, (_without_tokens(called.record, called.body),))


def _result(
    answered: Answered, pair: wire.Pair | None, shop_id: int
) -> Tokens | Throttled | Unavailable | InDoubt | Unauthorized:
    if pair is None or pair.refused:
        return _refusal(answered, wire.envelope(answered.text.encode()))
    if pair.whose not in {None, shop_id}:
        return InDoubt(f"Shopee answered for shop {pair.whose}, not for {shop_id}")
    return Tokens(
        access=pair.access_token,
        refresh=pair.refresh_token,
        issued_at=answered.at,
        access_expires_at=_expiry(answered.at, wire.decode(pair.expire_in, float)),
        refresh_expires_at=answered.at + REFRESH_LIFE,
    )


def _refusal(answered: Answered, answer: wire.Envelope | None) -> Throttled | Unavailable | InDoubt | Unauthorized:
    outcome = errors.meaning(answered, answer).outcome
    said = errors.said(answered, answer)
    match outcome:
        case Throttled() | Unavailable() | InDoubt():
            return outcome
        case Misconfigured(message=message) if answer is None or said.foreign:
            return Unavailable(message)  # not Shopee's own answer: the call did not come that far
        case _ if answer is not None and said.code in _DEAD_CODES:
            return Unauthorized(f"Shopee gives no tokens for the store: {said.words}", refreshable=False)
        case Misconfigured(message=message):
            return Unauthorized(message, refreshable=False)
        case _:
            return InDoubt(f"Shopee gives no tokens, and does not plainly say why: {said.words}")


def _expiry(at: datetime, expire_in: float | None) -> datetime:
    """`expire_in` is a number of seconds or, in one sample, a Unix time. What is neither counts as the documented four
    hours; an access token never outlives its refresh token."""
    if expire_in is None:
        return at + ACCESS_LIFE
    if _DURATION_SECONDS_MAX < expire_in <= _TIME_SECONDS_MAX:
        expires_at = datetime.fromtimestamp(expire_in, UTC)
    elif 0 < expire_in <= _DURATION_SECONDS_MAX:
        expires_at = at + timedelta(seconds=expire_in)
    else:
        return at + ACCESS_LIFE
    return min(expires_at, at + REFRESH_LIFE) if expires_at > at else at + ACCESS_LIFE


def _without_tokens(record: CallRecord, body: bytes) -> CallRecord:
    """An answer that is not a JSON object may hold tokens anywhere: nothing of it is kept."""
    fields = wire.decode(record.response.encode(), dict[str, object])
    if fields is None:
        return replace(record, response=_NOT_KEPT if record.response else "")
    kept = {name: _kept(name, value) for name, value in fields.items() if name in _OPEN_FIELDS | _SECRET_FIELDS}
    secrets = strings_under(body, lambda name: name not in _OPEN_FIELDS)
    return replace(record, response=redact(json.dumps(kept), secrets))


def _kept(name: str, value: object) -> object:
    return value if name in _OPEN_FIELDS and isinstance(value, str | int | None) else "***"
