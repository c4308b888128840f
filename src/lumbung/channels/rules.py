"""Error tables as data, for marketplaces that publish no error codes: rules on the HTTP status, and on words.

The words are English and Indonesian, and our reading [I]: each is written so that a wrong guess errs to the safe side.
What no rule knows but is plainly a refusal is Rejected with the marketplace's own words; what is not plainly anything
is InDoubt. A channel's errors.py puts its table together from these and its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lumbung.channels.base import (
    Deferred,
    Floor,
    InDoubt,
    Misconfigured,
    Outcome,
    Rejected,
    Scope,
    Throttled,
    Unavailable,
)
from lumbung.channels.reservation import RESERVED, least_units


@dataclass(frozen=True, slots=True)
class Said:
    """What a rule may use: the HTTP status, Retry-After in seconds, the words for a person, and the texts that patterns
    are searched in, one by one."""

    status: int
    retry_after_seconds: float | None
    words: str
    texts: tuple[str, ...]


Decision = Callable[[Said], Outcome]


@dataclass(frozen=True, slots=True)
class StatusRule:
    """Decides on the status alone, whatever the body says."""

    first: int
    last: int
    outcome: Decision


@dataclass(frozen=True, slots=True)
class WordRule:
    """Decides on an answer that refuses: `pattern` is searched in each of its texts, and `unless` must be in none of
    its words."""

    pattern: re.Pattern[str]
    outcome: Decision
    unless: re.Pattern[str] | None = None

    def matches(self, said: Said) -> bool:
        if self.unless is not None and self.unless.search(said.words):
            return False
        return any(self.pattern.search(text) is not None for text in said.texts)


def any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# Between two words: NOT_FOUND, not-found, not found, NotFound.
_ = BETWEEN = r"[ _-]?"

ITEM = any_of(r"(?<![a-z])(sku|product|produk|item|barang|listing|stock|stok)")
"""What is about one item is no verdict on the store, however the item is refused."""
LOGIN = any_of(
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
"""What is about who we are, also where an item is named beside it."""


def status_rules(name: str, *, login: Decision, forbidden: Decision) -> tuple[StatusRule, ...]:
    """What every HTTP server means by its statuses; `login` and `forbidden` are 401 and 403."""
    return (
        # No redirect is followed. One that is for now only is a page of somebody's trouble or login, and nothing was
        # applied; any other is a wrong base_url, for every listing alike.
        StatusRule(302, 302, lambda said: Unavailable(f"{name} redirects for now, is base_url right? {said.words}")),
        StatusRule(303, 303, lambda said: InDoubt(f"{name} redirects for its answer: {said.words}")),
        StatusRule(307, 307, lambda said: Unavailable(f"{name} redirects for now, is base_url right? {said.words}")),
        StatusRule(300, 399, lambda said: Misconfigured(f"{name} redirects elsewhere: {said.words}", Scope.STORE)),
        StatusRule(401, 401, login),
        StatusRule(403, 403, forbidden),
        StatusRule(408, 408, lambda said: InDoubt(f"{name} gave up waiting: {said.words}")),
        StatusRule(413, 413, lambda said: Rejected(f"{name} finds the request too large: {said.words}")),
        StatusRule(415, 415, lambda said: Rejected(f"{name} does not take this content type: {said.words}")),
        StatusRule(429, 429, lambda said: Throttled(said.retry_after_seconds)),
        # 503 too, even with Retry-After: nowhere is it documented that such a call was surely not applied.
        StatusRule(500, 599, lambda said: InDoubt(f"{name} failed: {said.words}")),
    )


def too_fast() -> WordRule:
    """A limit or quota of something else, such as the stock of a flash sale, is no limit of calls."""
    return WordRule(
        any_of(
            rf"too{_}many{_}(request|call)",
            rf"(?<![a-z])rate{_}limit",
            rf"(?<![a-z])(rate|request|api|call)s?{_}(limit|quota){_}(is |has been )?exceeded",
            r"throttl",
            rf"terlalu{_}banyak{_}permintaan",
        ),
        lambda said: Throttled(said.retry_after_seconds),
    )


def not_sure(name: str) -> WordRule:
    """Comes before every reading that would end an item: "product not found: internal timeout" says nothing."""
    return WordRule(
        any_of(
            rf"internal{_}(server)?{_}error",
            rf"(system|server){_}(error|busy)",
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
        lambda said: InDoubt(f"{name} is not sure: {said.words}"),
    )


def reserved(name: str) -> WordRule:
    """More is spoken for than was sent; the least that would be taken, where the words name it."""

    def floor(said: Said) -> Outcome:
        message = f"Below what {name} has reserved: {said.words}"
        least = least_units(said.words)
        return Deferred(None, message) if least is None else Floor(least, message)

    return WordRule(RESERVED, floor)


def item_gone(name: str) -> WordRule:
    return WordRule(
        any_of(
            rf"not{_}found",
            rf"not{_}exist",
            rf"tidak{_}ditemukan",
            rf"(unknown|invalid){_}([a-z]{{1,20}}{_})?(sku|product|item)",
            rf"(sku|product|item){_}(code|id)?{_}(is )?(unknown|invalid)",
            r"deleted",
            r"archived",
            r"suspended",
            r"banned",
            r"diblokir",
            r"dihapus",
        ),
        lambda said: Rejected(f"{name} does not know the item, or has closed it: {said.words}"),
    )


def locked() -> WordRule:
    """Campaigns, holidays, locks: all of them pass."""
    return WordRule(
        any_of(
            r"campaign",
            rf"flash{_}sale",
            r"promo",
            r"holiday",
            r"libur",
            rf"(store|shop|toko|lapak){_}(is |sedang )?(closed|tutup)",
            rf"(sku|product|item|stock|stok|barang|produk){_}(is )?(locked|terkunci)",
        ),
        lambda said: Deferred(None, f"Locked for now: {said.words}"),
    )


def by_status(rules: Iterable[StatusRule], said: Said) -> Outcome | None:
    return next((rule.outcome(said) for rule in rules if rule.first <= said.status <= rule.last), None)


def by_words(rules: Iterable[WordRule], said: Said) -> Outcome | None:
    return next((rule.outcome(said) for rule in rules if rule.matches(said)), None)


def not_the_store(name: str, said: Said, found: Outcome | None) -> Outcome | None:
    """What a 401 or 403 means when it is not about the store: it will pass, or it is about one item. `found`: what its
    words mean. None: it is about the store."""
    if isinstance(found, Throttled):
        return found
    if said.status == 403 and said.retry_after_seconds is not None:
        return Throttled(said.retry_after_seconds)
    if LOGIN.search(said.words):
        return None
    match found:
        case Deferred() | Floor() | InDoubt() | Misconfigured(scope=Scope.LISTING):
            return found
        case _ if ITEM.search(said.words):
            return found if isinstance(found, Rejected) else Rejected(f"{name} forbids this item: {said.words}")
        case _:
            return None
