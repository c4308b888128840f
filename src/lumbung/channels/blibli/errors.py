"""What Blibli's answers mean, as data. The first rule that matches decides.

Facts (marketplaces.md section 4, C): `success` false with an errorCode, mostly under HTTP 200; 429, 401, 403 and 5xx
are seen. **The errorCode strings are not published** (section 15), so the rules on words, English and Indonesian, are
our reading [I]: each is written so that a wrong guess errs to the safe side. What no rule knows but is plainly a
refusal is Rejected with Blibli's own words; what is not plainly anything is InDoubt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from lumbung.channels.base import (
    Accepted,
    Deferred,
    Floor,
    InDoubt,
    Misconfigured,
    Outcome,
    Rejected,
    Scope,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.blibli.wire import Envelope
from lumbung.channels.reservation import RESERVED, least_units


@dataclass(frozen=True, slots=True)
class Said:
    """What a rule may use: the HTTP status, Retry-After in seconds, and the words for a person."""

    status: int
    retry_after_seconds: float | None
    words: str


@dataclass(frozen=True, slots=True)
class StatusRule:
    """Decides on the status alone, whatever the body says."""

    first: int
    last: int
    outcome: Callable[[Said], Outcome]


@dataclass(frozen=True, slots=True)
class WordRule:
    """Decides on an envelope that refuses: `pattern` is searched in errorCode and, failing that, in errorMessage, and
    `unless` must be in neither."""

    pattern: re.Pattern[str]
    outcome: Callable[[Said], Outcome]
    unless: re.Pattern[str] | None = None

    def matches(self, said: Said, answer: Envelope) -> bool:
        if self.unless is not None and self.unless.search(said.words):
            return False
        return any(self.pattern.search(text) is not None for text in (answer.code, answer.message))


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# Between two words: NOT_FOUND, not-found, not found, NotFound.
_ = r"[ _-]?"

# What is about one item is no verdict on the store, however the item is refused.
_ITEM = _any_of(r"(?<![a-z])(sku|product|produk|item|barang|listing|stock|stok)")
_LOGIN = _any_of(
    r"token",
    r"credential",
    r"signature",
    r"authenticat",
    rf"(?<![a-z])log{_}in",
    r"(?<![a-z])(api|app|client)(?![a-z])",
    r"application",
    r"scope",
    rf"user{_}agent",
)


def _reserved(said: Said) -> Outcome:
    message = f"Below what Blibli has reserved: {said.words}"
    least = least_units(said.words)
    return Deferred(None, message) if least is None else Floor(least, message)


STATUS_RULES: tuple[StatusRule, ...] = (
    StatusRule(204, 204, lambda _said: Accepted()),  # [C] seen; it has no body
    # No redirect is followed. One that is for now only is a page of somebody's trouble or login, and nothing was
    # applied; any other is a wrong base_url, for every listing alike.
    StatusRule(302, 302, lambda said: Unavailable(f"Blibli redirects for now, is base_url right? {said.words}")),
    StatusRule(303, 303, lambda said: InDoubt(f"Blibli redirects for its answer: {said.words}")),
    StatusRule(307, 307, lambda said: Unavailable(f"Blibli redirects for now, is base_url right? {said.words}")),
    StatusRule(300, 399, lambda said: Misconfigured(f"Blibli redirects elsewhere: {said.words}", Scope.STORE)),
    StatusRule(401, 401, lambda said: Unauthorized(f"Blibli does not accept the login: {said.words}", False)),
    StatusRule(403, 403, lambda said: Misconfigured(f"Blibli forbids this store's calls: {said.words}", Scope.STORE)),
    StatusRule(408, 408, lambda said: InDoubt(f"Blibli gave up waiting: {said.words}")),
    StatusRule(413, 413, lambda said: Rejected(f"Blibli finds the request too large: {said.words}")),
    StatusRule(415, 415, lambda said: Rejected(f"Blibli does not take this content type: {said.words}")),
    StatusRule(429, 429, lambda said: Throttled(said.retry_after_seconds)),
    # 503 too, even with Retry-After: nowhere is it documented that such a call was surely not applied.
    StatusRule(500, 599, lambda said: InDoubt(f"Blibli failed: {said.words}")),
)

WORD_RULES: tuple[WordRule, ...] = (
    WordRule(
        # A limit or quota of something else, such as the stock of a flash sale, is no limit of calls.
        _any_of(
            rf"too{_}many{_}(request|call)",
            rf"(?<![a-z])rate{_}limit",
            rf"(?<![a-z])(rate|request|api|call)s?{_}(limit|quota){_}(is |has been )?exceeded",
            r"throttl",
        ),
        lambda said: Throttled(said.retry_after_seconds),
    ),
    # Doubt comes before every reading that would end an item: "product not found: internal timeout" says nothing.
    WordRule(
        _any_of(
            rf"internal{_}(server)?{_}error",
            rf"system{_}(error|busy)",
            rf"server{_}(error|busy)",
            r"\bbusy\b",
            rf"time{_}?d?{_}out",
            rf"try{_}again",
            r"temporar",
            rf"service{_}(is )?unavailable",
            r"maintenance",
            r"unexpected",
            r"unspecified",
            rf"coba{_}lagi",
            r"sibuk",
            r"gangguan",
        ),
        lambda said: InDoubt(f"Blibli is not sure: {said.words}"),
    ),
    WordRule(
        _any_of(
            r"unauthori[sz]ed",
            rf"authentication{_}fail",
            rf"(invalid|wrong|bad|unknown){_}(api{_})?(client|seller){_}(id|key|credential)",
            rf"(invalid|wrong|bad|missing){_}(signature|credential|token)",
            rf"signature{_}(is )?(invalid|mismatch|expired|not{_}match)",
        ),
        lambda said: Unauthorized(f"Blibli does not accept the login: {said.words}", False),
        unless=_ITEM,
    ),
    # Only words about the store itself, adjacent to it: these stop the whole store.
    WordRule(
        _any_of(
            rf"\b(store|merchant|seller|business{_}partner){_}(code|account)?{_}(is )?"
            rf"(not{_}(found|active|registered|exist)|inactive|suspended|invalid)",
            rf"(invalid|unknown|inactive){_}(store|merchant|seller|business{_}partner)\b",
        ),
        lambda said: Misconfigured(f"Blibli does not accept the store: {said.words}", Scope.STORE),
        unless=_ITEM,
    ),
    WordRule(
        _any_of(rf"pick{_}?up{_}point"),
        lambda said: Misconfigured(f"The pickup point is wrong: {said.words}", Scope.LISTING),
    ),
    WordRule(RESERVED, _reserved),
    WordRule(
        _any_of(
            rf"not{_}found",
            rf"not{_}exist",
            rf"tidak{_}ditemukan",
            rf"(unknown|invalid){_}([a-z]{{1,20}}{_})?(sku|product|item)",
            rf"(sku|product|item){_}(code|id)?{_}(is )?(unknown|invalid)",
            r"deleted",
            r"archived",
            r"suspended",
            r"banned",
        ),
        lambda said: Rejected(f"Blibli does not know the item, or has closed it: {said.words}"),
    ),
    WordRule(
        _any_of(
            r"campaign",
            rf"flash{_}sale",
            r"promo",
            r"holiday",
            r"libur",
            rf"(store|toko){_}(is |sedang )?(closed|tutup)",
            rf"(sku|product|item|stock|stok|produk){_}(is )?(locked|terkunci)",
        ),
        lambda said: Deferred(None, f"Locked for now: {said.words}"),
    ),
)


def classify(status: int, answer: Envelope | None, retry_after_seconds: float | None) -> Outcome:
    """What one answer means for the one listing of the call. `answer` is None when no envelope could be read."""
    said = Said(status, retry_after_seconds, _words(status, answer))
    if status in {401, 403} and (instead := _not_the_store(said, answer)) is not None:
        return instead
    for rule in STATUS_RULES:
        if rule.first <= status <= rule.last:
            return rule.outcome(said)
    if answer is None:
        return _without_envelope(said)
    if answer.success:
        return _claims_success(said, answer)
    found = _by_words(said, answer)
    if found is not None:
        return found
    if 200 <= status < 300 and not answer.code and not answer.message:
        return InDoubt(f"Blibli's answer contradicts itself: {said.words}")  # no errorCode is the sign of success [C]
    if 200 <= status < 300 or status in {400, 404, 409, 422}:
        return Rejected(f"Blibli refused: {said.words}")
    return InDoubt(f"Blibli answered strangely: {said.words}")


def _by_words(said: Said, answer: Envelope) -> Outcome | None:
    return next((rule.outcome(said) for rule in WORD_RULES if rule.matches(said, answer)), None)


def _not_the_store(said: Said, answer: Envelope | None) -> Outcome | None:
    """What a 401 or 403 means when it is not about the store: it will pass, or it is about one item. None: it is."""
    found = None if answer is None else _by_words(said, answer)
    if isinstance(found, Throttled):
        return found
    if said.status == 403 and said.retry_after_seconds is not None:
        return Throttled(said.retry_after_seconds)
    if _LOGIN.search(said.words):
        return None
    match found:
        case Deferred() | Floor() | InDoubt() | Misconfigured(scope=Scope.LISTING):
            return found
        case _ if _ITEM.search(said.words):
            return found if isinstance(found, Rejected) else Rejected(f"Blibli forbids this item: {said.words}")
        case _:
            return None


def _claims_success(said: Said, answer: Envelope) -> Outcome:
    """Success needs all three signs; when they contradict each other nothing is sure."""
    if 200 <= said.status < 300 and not answer.code:
        return Accepted()
    return InDoubt(f"Blibli's answer contradicts itself: {said.words}")


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
