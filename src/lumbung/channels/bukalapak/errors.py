"""What Bukalapak's answers mean, as data. The first rule that matches decides.

Facts (marketplaces.md section 5, C): `errors` with a code and a message, and the status both of HTTP and in
`meta.http_status`. **The codes are not published**, so the rules on words, English and Indonesian, are our reading [I]:
each is written so that a wrong guess errs to the safe side. What no rule knows but is plainly a refusal is Rejected
with Bukalapak's own words; what is not plainly anything is InDoubt.
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
from lumbung.channels.bukalapak.wire import Envelope
from lumbung.channels.reservation import RESERVED, least_units


@dataclass(frozen=True, slots=True)
class Said:
    """What a rule may use: the status, Retry-After in seconds, and the words for a person."""

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
    """Decides on an answer that refuses: `pattern` is searched in its words, and `unless` must not be in them."""

    pattern: re.Pattern[str]
    outcome: Callable[[Said], Outcome]
    unless: re.Pattern[str] | None = None

    def matches(self, said: Said) -> bool:
        if self.unless is not None and self.unless.search(said.words):
            return False
        return self.pattern.search(said.words) is not None


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
    message = f"Below what Bukalapak has reserved: {said.words}"
    least = least_units(said.words)
    return Deferred(None, message) if least is None else Floor(least, message)


STATUS_RULES: tuple[StatusRule, ...] = (
    # No redirect is followed. One that is for now only is a page of somebody's trouble or login, and nothing was
    # applied; any other is a wrong base_url, for every listing alike.
    StatusRule(302, 302, lambda said: Unavailable(f"Bukalapak redirects for now, is base_url right? {said.words}")),
    StatusRule(303, 303, lambda said: InDoubt(f"Bukalapak redirects for its answer: {said.words}")),
    StatusRule(307, 307, lambda said: Unavailable(f"Bukalapak redirects for now, is base_url right? {said.words}")),
    StatusRule(300, 399, lambda said: Misconfigured(f"Bukalapak redirects elsewhere: {said.words}", Scope.STORE)),
    StatusRule(401, 401, lambda said: Unauthorized(f"Bukalapak does not accept the access token: {said.words}", True)),
    StatusRule(
        403,
        403,
        lambda said: Misconfigured(
            f"Bukalapak forbids this store's calls (check user_agent and scope): {said.words}", Scope.STORE
        ),
    ),
    StatusRule(408, 408, lambda said: InDoubt(f"Bukalapak gave up waiting: {said.words}")),
    StatusRule(413, 413, lambda said: Rejected(f"Bukalapak finds the request too large: {said.words}")),
    StatusRule(415, 415, lambda said: Rejected(f"Bukalapak does not take this content type: {said.words}")),
    StatusRule(429, 429, lambda said: Throttled(said.retry_after_seconds)),
    # 503 too, even with Retry-After: nowhere is it documented that such a call was surely not applied.
    StatusRule(500, 599, lambda said: InDoubt(f"Bukalapak failed: {said.words}")),
)

WORD_RULES: tuple[WordRule, ...] = (
    WordRule(
        _any_of(rf"too{_}many{_}request", rf"rate{_}limit", r"throttl", rf"terlalu{_}banyak{_}permintaan"),
        lambda said: Throttled(said.retry_after_seconds),
    ),
    # Doubt comes before every reading that would end an item: "product not found: internal timeout" says nothing.
    WordRule(
        _any_of(
            rf"internal{_}(server)?{_}error",
            rf"(system|server){_}(error|busy)",
            r"\bbusy\b",
            rf"time{_}?d?{_}out",
            rf"try{_}again",
            r"temporar",
            rf"service{_}(is )?unavailable",
            r"maintenance",
            r"unexpected",
            rf"coba{_}lagi",
            r"sibuk",
            r"gangguan",
        ),
        lambda said: InDoubt(f"Bukalapak is not sure: {said.words}"),
    ),
    WordRule(
        _any_of(
            r"unauthori[sz]ed",
            rf"authentication{_}fail",
            rf"(invalid|wrong|missing|expired|revoked){_}(access{_})?token",
            rf"token{_}(is )?(invalid|missing|expired|revoked)",
        ),
        lambda said: Unauthorized(f"Bukalapak does not accept the access token: {said.words}", True),
        unless=_ITEM,
    ),
    # Only words about the store itself, adjacent to it: these stop the whole store.
    WordRule(
        _any_of(
            rf"\b(store|seller|shop|toko|lapak){_}(is )?"
            rf"(not{_}(found|active|registered|exist)|inactive|suspended|banned)"
        ),
        lambda said: Misconfigured(f"Bukalapak does not accept the store: {said.words}", Scope.STORE),
        unless=_ITEM,
    ),
    WordRule(
        _any_of(
            rf"not{_}(yours|owned)|does(n't|{_}not){_}belong|bukan{_}milik",
            rf"not{_}the{_}owner{_}of{_}(the|this){_}(product|sku|item)",
        ),
        lambda said: Rejected(f"Bukalapak says that the item is another shop's: {said.words}"),
    ),
    WordRule(RESERVED, _reserved),
    WordRule(
        _any_of(
            rf"not{_}found",
            rf"not{_}exist",
            rf"tidak{_}ditemukan",
            rf"(unknown|invalid){_}(sku|product|item)",
            rf"(sku|product|item){_}(id )?(is )?(unknown|invalid)",
            r"deleted",
            r"archived",
            r"suspended",
            r"banned",
            r"diblokir",
            r"dihapus",
        ),
        lambda said: Rejected(f"Bukalapak does not know the item, or has closed it: {said.words}"),
    ),
    WordRule(
        _any_of(
            r"campaign",
            rf"flash{_}sale",
            r"promo",
            r"holiday",
            r"libur",
            rf"(store|shop|toko|lapak){_}(is |sedang )?(closed|tutup)",
            rf"(sku|product|item|stock|stok|barang|produk){_}(is )?(locked|terkunci)",
        ),
        lambda said: Deferred(None, f"Locked for now: {said.words}"),
    ),
)


def classify(status: int, answer: Envelope | None, retry_after_seconds: float | None) -> Outcome:
    """What one answer means. `answer` is None when no envelope could be read."""
    told = _told(status, answer)
    said = Said(told, retry_after_seconds, (answer.words if answer is not None else "") or f"HTTP {told}")
    if told in {401, 403} and (instead := _not_the_store(said)) is not None:
        return instead
    for rule in STATUS_RULES:
        if rule.first <= told <= rule.last:
            return rule.outcome(said)
    if answer is None:
        return _without_envelope(said)
    if not answer.errors:
        return _claims_success(said, answer)
    found = _by_words(said)
    if found is not None:
        return found
    if 200 <= told < 300 or told in {400, 404, 409, 422}:
        return Rejected(f"Bukalapak refused: {said.words}")
    return InDoubt(f"Bukalapak answered strangely: {said.words}")


def _by_words(said: Said) -> Outcome | None:
    return next((rule.outcome(said) for rule in WORD_RULES if rule.matches(said)), None)


def _not_the_store(said: Said) -> Outcome | None:
    """What a 401 or 403 means when it is not about the store: it will pass, or it is about one item. None: it is."""
    found = _by_words(said)
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
            return found if isinstance(found, Rejected) else Rejected(f"Bukalapak forbids this item: {said.words}")
        case _:
            return None


def _told(status: int, answer: Envelope | None) -> int:
    """HTTP's status, or a worse one in `meta` beneath an HTTP success: a gateway may answer 200 for everything."""
    if answer is None or answer.meta is None or not 200 <= status < 300:
        return status
    return answer.meta.http_status


def _claims_success(said: Said, answer: Envelope) -> Outcome:
    """Success needs all of its signs; when they contradict each other nothing is sure."""
    if 200 <= said.status < 300 and answer.meta is not None and answer.has_data:
        return Accepted()
    return InDoubt(f"Bukalapak's answer contradicts itself: {said.words}")


def _without_envelope(said: Said) -> Outcome:
    # A 404 that is not Bukalapak's own is a refusal: no route took the call. It may be one odd listing or a wrong
    # base_url; `check()` knows that it is not about a listing and says Misconfigured(STORE).
    if said.status == 404:
        return Rejected(f"Bukalapak has no such address (item unknown, or base_url wrong): {said.words}")
    return InDoubt(f"Bukalapak's answer cannot be read: {said.words}")
