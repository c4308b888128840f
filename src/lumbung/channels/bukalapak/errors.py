"""What Bukalapak's answers mean, as data. The first rule that matches decides.

Facts (marketplaces.md section 5, C): `errors` with a code and a message, and the status both of HTTP and in
`meta.http_status`. **The codes are not published**, so the rules on words are our reading (rules.py).
"""

from __future__ import annotations

from lumbung.channels.base import Accepted, InDoubt, Misconfigured, Outcome, Rejected, Scope, Unauthorized
from lumbung.channels.bukalapak.wire import Envelope
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


def _wrong_token(said: Said) -> Outcome:
    return Unauthorized(f"Bukalapak does not accept the access token: {said.words}", True)


def _forbidden(said: Said) -> Outcome:
    return Misconfigured(
        f"Bukalapak forbids this store's calls (check user_agent and scope): {said.words}", Scope.STORE
    )


STATUS_RULES: tuple[StatusRule, ...] = status_rules("Bukalapak", login=_wrong_token, forbidden=_forbidden)

WORD_RULES: tuple[WordRule, ...] = (
    too_fast(),
    not_sure("Bukalapak"),
    WordRule(
        any_of(
            r"unauthori[sz]ed",
            rf"authentication{_}fail",
            rf"(invalid|wrong|missing|expired|revoked){_}(access{_})?token",
            rf"token{_}(is )?(invalid|missing|expired|revoked)",
        ),
        _wrong_token,
        unless=ITEM,
    ),
    # Only words about the store itself, adjacent to it: these stop the whole store.
    WordRule(
        any_of(
            rf"\b(store|seller|shop|toko|lapak){_}(is )?"
            rf"(not{_}(found|active|registered|exist)|inactive|suspended|banned)"
        ),
        lambda said: Misconfigured(f"Bukalapak does not accept the store: {said.words}", Scope.STORE),
        unless=ITEM,
    ),
    WordRule(
        any_of(
            rf"not{_}(yours|owned)|does(n't|{_}not){_}belong|bukan{_}milik",
            rf"not{_}the{_}owner{_}of{_}(the|this){_}(product|sku|item)",
        ),
        lambda said: Rejected(f"Bukalapak says that the item is another shop's: {said.words}"),
    ),
    reserved("Bukalapak"),
    item_gone("Bukalapak"),
    locked(),
)


def classify(status: int, answer: Envelope | None, retry_after_seconds: float | None) -> Outcome:
    """What one answer means. `answer` is None when no envelope could be read."""
    told = _told(status, answer)
    words = (answer.words if answer is not None else "") or f"HTTP {told}"
    said = Said(told, retry_after_seconds, words, (words,))
    found = by_words(WORD_RULES, said)
    if told in {401, 403} and (instead := not_the_store("Bukalapak", said, found)) is not None:
        return instead
    if (plain := by_status(STATUS_RULES, said)) is not None:
        return plain
    if answer is None:
        return _without_envelope(said)
    if not answer.errors:
        return _claims_success(said, answer)
    if found is not None:
        return found
    if 200 <= told < 300 or told in {400, 404, 409, 422}:
        return Rejected(f"Bukalapak refused: {said.words}")
    return InDoubt(f"Bukalapak answered strangely: {said.words}")


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
