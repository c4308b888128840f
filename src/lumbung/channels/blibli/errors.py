"""What Blibli's answers mean, as data. The first rule that matches decides.

Facts (marketplaces.md section 4, C): `success` false with an errorCode, mostly under HTTP 200; 429, 401, 403 and 5xx
are seen. **The errorCode strings are not published** (section 15), so the rules on words are our reading (rules.py).
"""

from __future__ import annotations

from lumbung.channels.base import Accepted, InDoubt, Misconfigured, Outcome, Rejected, Scope, Unauthorized
from lumbung.channels.blibli.wire import Envelope
from lumbung.channels.rules import (
    BETWEEN,
    ITEM,
    Said,
    StatusRule,
    WordRule,
    any_of,
    by_status,
    by_words,
    item_gone,
    locked,
    not_sure,
    not_the_store,
    reserved,
    status_rules,
    too_fast,
)

_ = BETWEEN


def _wrong_login(said: Said) -> Outcome:
    return Unauthorized(f"Blibli does not accept the login: {said.words}", False)


def _forbidden(said: Said) -> Outcome:
    return Misconfigured(f"Blibli forbids this store's calls: {said.words}", Scope.STORE)


STATUS_RULES: tuple[StatusRule, ...] = (
    StatusRule(204, 204, lambda _said: Accepted()),  # [C] seen; it has no body
    *status_rules("Blibli", login=_wrong_login, forbidden=_forbidden),
)

WORD_RULES: tuple[WordRule, ...] = (
    too_fast(),
    not_sure("Blibli"),
    WordRule(
        any_of(
            r"unauthori[sz]ed",
            rf"authentication{_}fail",
            rf"(invalid|wrong|bad|unknown){_}(api{_})?(client|seller){_}(id|key|credential)",
            rf"(invalid|wrong|bad|missing){_}(signature|credential|token)",
            rf"signature{_}(is )?(invalid|mismatch|expired|not{_}match)",
        ),
        _wrong_login,
        unless=ITEM,
    ),
    # Only words about the store itself, adjacent to it: these stop the whole store.
    WordRule(
        any_of(
            rf"\b(store|merchant|seller|business{_}partner){_}(code|account)?{_}(is )?"
            rf"(not{_}(found|active|registered|exist)|inactive|suspended|invalid)",
            rf"(invalid|unknown|inactive){_}(store|merchant|seller|business{_}partner)\b",
        ),
        lambda said: Misconfigured(f"Blibli does not accept the store: {said.words}", Scope.STORE),
        unless=ITEM,
    ),
    WordRule(
        any_of(rf"pick{_}?up{_}point"),
        lambda said: Misconfigured(f"The pickup point is wrong: {said.words}", Scope.LISTING),
    ),
    reserved("Blibli"),
    item_gone("Blibli"),
    locked(),
)


def classify(status: int, answer: Envelope | None, retry_after_seconds: float | None) -> Outcome:
    """What one answer means for the one listing of the call. `answer` is None when no envelope could be read."""
    if answer is not None and answer.success and 200 <= status < 300 and not answer.code:
        return Accepted()  # whatever is said besides: first, because nearly every answer is this one
    texts = () if answer is None else (answer.code, answer.message)
    said = Said(status, retry_after_seconds, _words(status, answer), texts)
    found = by_words(WORD_RULES, said)
    if status in {401, 403} and (instead := not_the_store("Blibli", said, found)) is not None:
        return instead
    if (plain := by_status(STATUS_RULES, said)) is not None:
        return plain
    if answer is None:
        return _without_envelope(said)
    if answer.success:
        return InDoubt(f"Blibli's answer contradicts itself: {said.words}")
    if found is not None:
        return found
    if 200 <= status < 300 and not answer.code and not answer.message:
        return InDoubt(f"Blibli's answer contradicts itself: {said.words}")  # no errorCode is the sign of success [C]
    if 200 <= status < 300 or status in {400, 404, 409, 422}:
        return Rejected(f"Blibli refused: {said.words}")
    return InDoubt(f"Blibli answered strangely: {said.words}")


def _without_envelope(said: Said) -> Outcome:
    # A 404 that is not Blibli's own is a refusal: no route took the call. It may be one odd SKU or a wrong base_url.
    # Misconfigured(STORE) would let one odd SKU stop a store. Rejected costs that listing only, and when it is
    # base_url the engine pauses the store anyway: after 50 distinct rejections in a row it parks none of them.
    # `check()` knows that it is not about a SKU and says Misconfigured(STORE).
    if said.status == 404:
        return Rejected(f"Blibli has no such address (item unknown, or base_url wrong): {said.words}")
    return InDoubt(f"Blibli's answer cannot be read: {said.words}")


def _words(status: int, answer: Envelope | None) -> str:
    if answer is None:
        return f"HTTP {status}"
    return ": ".join(part for part in (answer.code, answer.message) if part) or f"HTTP {status}, no reason given"
