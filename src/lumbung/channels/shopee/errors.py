"""What Shopee's answers mean, as data. The first rule that matches decides.

Facts: marketplaces.md section 1.4 [D codes, C wordings]. One code may have opposite meanings (`error_auth`,
`error_inner`, `error_busi`, `error_server`, `error_param`), so most rules look at the message, and those stand before
the rules that look at the code alone. Codes come with or without a module in front (`product.error_param`); their
typing errors are Shopee's own. Patterns that no source shows are our reading [I], written so that a wrong guess errs
to the safe side: what no rule knows but is plainly a refusal is Rejected with Shopee's own words.

Nowhere is it documented that a call that ended in `error_server` and the like was surely not applied, so those are
InDoubt. Unavailable are only a wrong timestamp, and addresses that did not lead to Shopee.

A reason of one listing is read by the same rules, as a code when it is one and else as words; the call's own code
counts where there is no reason. Such words never speak for the store: the call came through, or there were no lists.

Patterns take time in proportion to the text: two words that must both be there are two lookaheads, not `one.*other`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import assert_never

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
from lumbung.channels.call import Answered
from lumbung.channels.http import NoAnswer, NotSent
from lumbung.channels.shopee.wire import Envelope, envelope

# A module's name in front of a code. `error.param` is a code of its own.
_MODULE = re.compile(r"\A(?!error\.)[a-z_]+\.(?=.)", re.ASCII)
# What Shopee's codes look like. `Forbidden` and `Not Found` are words of what stands before Shopee.
_CODE = re.compile(r"[a-z][a-z0-9]*(?:[_.][a-z0-9]+)+", re.ASCII | re.IGNORECASE)
_QUOTA_DAY = timezone(timedelta(hours=8))


@dataclass(frozen=True, slots=True)
class Said:
    """What a rule may use: the bare code, the message (a listing's own reason where it has one), both as words for a
    person, the HTTP status, Retry-After in seconds, and when the call was begun (UTC). `foreign`: the code is none of
    Shopee's, and part of the message."""

    code: str
    message: str
    words: str
    status: int
    retry_after_seconds: float | None
    at: datetime
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """`codes`: one of these, or any where there are none. `pattern` is searched in the message. `everyone`: it is
    about the shop, so that no single listing of a call is to blame."""

    outcome: Callable[[Said], Outcome]
    codes: frozenset[str] = frozenset()
    pattern: re.Pattern[str] | None = None
    everyone: bool = False

    def matches(self, said: Said) -> bool:
        if self.codes and said.code not in self.codes:
            return False
        return self.pattern is None or self.pattern.search(said.message) is not None


@dataclass(frozen=True, slots=True)
class StatusRule:
    """Decides on an answer that is not Shopee's own: it comes from what stands before it."""

    first: int
    last: int
    outcome: Callable[[Said], Outcome]


@dataclass(frozen=True, slots=True)
class Meaning:
    """An outcome; `everyone` as in Rule."""

    outcome: Outcome
    everyone: bool = False


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


def _all_of(*patterns: str) -> str:
    """Each of them somewhere, in any order."""
    return r"\A" + "".join(rf"(?=.*(?:{pattern}))" for pattern in patterns)


def _codes(*codes: str) -> frozenset[str]:
    return frozenset(codes)


# --- What the rules make of it ---


def _clock(said: Said) -> Outcome:
    return Unavailable(f"Shopee does not accept the time of the call, check this machine's clock: {said.words}")


def _token(said: Said) -> Outcome:
    return Unauthorized(f"Shopee does not accept the access token: {said.words}", refreshable=True)


def _no_longer_authorised(said: Said) -> Outcome:
    return Unauthorized(f"The store is no longer authorised: {said.words}", refreshable=False)


def _application(said: Said) -> Outcome:
    return Misconfigured(f"Shopee does not accept the application: {said.words}", Scope.STORE)


def _store(said: Said) -> Outcome:
    return Misconfigured(f"Shopee does not accept the store: {said.words}", Scope.STORE)


def _location(said: Said) -> Outcome:
    return Misconfigured(
        f"The listing's locations are not as Shopee keeps them (`lumbung store link` names them, `lumbung store "
        f"forget-location` is for one that is gone): {said.words}"
    )


def _locations_of_the_shop(said: Said) -> Outcome:
    return Misconfigured(
        f"The store's locations are not as Shopee keeps them (`lumbung store link` names them): {said.words}",
        Scope.STORE,
    )


def _fulfilled_by_shopee(said: Said) -> Outcome:
    return Misconfigured(f"Shopee keeps the stock of this item itself: {said.words}")


def _too_fast(said: Said) -> Outcome:
    scope = Scope.APPLICATION if _OF_THE_APPLICATION.search(said.message) else Scope.STORE
    return Throttled(said.retry_after_seconds, scope, f"Shopee asks to slow down: {said.words}")


def _quota(said: Said) -> Outcome:
    seconds = said.retry_after_seconds
    seconds = seconds_until_quota_day(said.at) if seconds is None else seconds
    return Throttled(seconds, Scope.STORE, f"The day's calls are used up: {said.words}")


def _floor(said: Said) -> Outcome:
    reserved = _RESERVED_NUMBER.search(said.message)
    if reserved is None:
        return Deferred(None, f"More is reserved than was sent: {said.words}")
    return Floor(int(reserved[1] or reserved[2]), f"More is reserved than was sent: {said.words}")


def _locked(said: Said) -> Outcome:
    return Deferred(None, f"Locked for now: {said.words}")


def _unsure(said: Said) -> Outcome:
    return InDoubt(f"Shopee is not sure: {said.words}")


def _gone(said: Said) -> Outcome:
    return Rejected(f"Shopee does not know the item or variation, or has closed it: {said.words}")


def _does_not_fit(said: Said) -> Outcome:
    return Rejected(f"The listing is not as Shopee keeps the item: {said.words}")


def _refused(said: Said) -> Outcome:
    return Rejected(f"Shopee refused: {said.words}")


# --- The table ---

_RESERVED = r"reserved?[ _-]?stock"  # both spellings are in the documentation [D]
# `Stock should be larger than 13 (reserve stock number) for model 01` [C]. Nothing else of the text is a number of it.
_RESERVED_NUMBER = _any_of(
    rf"(?<![\d.,])(\d{{1,12}}) ?[(\[]? ?(?:the )?(?:real-?time )?{_RESERVED}",
    rf"{_RESERVED}(?:[ _]number)? ?(?:is|of|=|:)? ?\(?(\d{{1,12}})(?![\d.,]{{0,20}}\d)",
)
_OF_THE_APPLICATION = _any_of(r"\bpartner", r"\bapp\b", r"\bapplication\b")  # [I]
_TIMESTAMP = r"time_?stamp"
_ACCESS = r"acc?e{1,3}ss[ _]?token"
_PARAMETER = r"\b(partner_id|sign|timestamp|access_token|shop_?id)\b"
_WRAPPER = "error_busi_update_stock_failed"

UNSURE_CODES = _codes("error_server", "error_inner", "error_network", "error_data", "error_system_busy")
DEAD_AUTHORISATION_CODES = _codes(
    "error_shop_refresh_token",
    "error_merchant_refresh_token",
    "refresh_token_expired",
    "shop_access_expired",
    "merchant_access_expired",
    "shop_no_linked",
    "merchant_no_linked",
    "shop_banned",
    "merchant_banned",
)

RULES: tuple[Rule, ...] = (
    # How we call: nothing here is a listing's fault, and none of these calls got past Shopee's door.
    Rule(_clock, _codes("error_timestamp", "invalid_timestamp")),  # [I]
    Rule(
        _clock,
        pattern=_any_of(
            rf"(invalid|wrong|expired|stale|outdated) (the )?{_TIMESTAMP}",
            rf"{_TIMESTAMP}( is| has| was)?( been)? (invalid|wrong|expired?|stale|outdated|too|not valid|out of)",
        ),
    ),
    Rule(_token, _codes("invalid_acceess_token", "invalid_access_token")),
    Rule(
        _token,
        pattern=_any_of(
            rf"(invalid|wrong|expired) {_ACCESS}",
            rf"{_ACCESS}( is| has)?( been)? (invalid|wrong|expired)",
        ),
    ),
    Rule(_no_longer_authorised, DEAD_AUTHORISATION_CODES),
    Rule(_application, _codes("error_sign", "source_ip_undeclared")),  # the second [I]
    Rule(
        _application,
        pattern=_any_of(
            r"(invalid|wrong) sign\b",
            r"(invalid|wrong|unknown) partner",
            r"partner(_id| id)?( is)? (invalid|not exist|not found)",
            rf"\b(no|missing|lack of) {_PARAMETER}( in (the )?query)?\W{{0,3}}\Z",
            rf"\bno {_PARAMETER} in (the )?query",
            rf"\bmissing (\w{{1,20}}:? ){{0,3}}{_PARAMETER}",
            rf"{_PARAMETER}( is)? (missing|required)",
            r"not from gateway",
            r"gateway\W{1,3}illegal",
            r"no permission to (the )?(current|this) api",
            _all_of(r"\bip\b", r"white ?list|undeclared|not declared"),
        ),
    ),
    # How fast.
    Rule(_too_fast, _codes("error_rate_limit")),
    Rule(_too_fast, pattern=_any_of(r"too many requests", r"rate limit")),
    Rule(_quota, _codes("error_limit")),
    # Before the codes that are mostly doubt: these words are plain under any code.
    Rule(_floor, _codes("error.param")),  # with a dot it is never anything else [D]
    Rule(
        _floor,
        pattern=_any_of(
            _all_of(_RESERVED, r"than|exceed|less|least|more|number"),
            _all_of(r"stock", r"\b(less|lower|smaller|fewer) than\b", r"\breserved\b"),
        ),
    ),
    Rule(_fulfilled_by_shopee, pattern=_any_of(r"full FBS", r"must be equal to 0")),
    # How the whole shop keeps its stock; any other word of locations is how one item is kept.
    Rule(
        _locations_of_the_shop,
        pattern=_any_of(
            r"(not have|no) (the )?(right|permission) to (use|set|fill).{0,20} (by )?location_?id",
            _all_of(r"\bshop\b", r"(not have|no) (the )?(right|permission)", r"location[ _]?id"),
            r"not match(ed)?( with)? (the )?shop",
            r"multi[ -]?warehouse",
        ),
    ),
    Rule(_locations_of_the_shop, _codes("error_not_in_whitelist")),
    Rule(
        _location,
        pattern=_any_of(r"location[ _]?id", r"stock location", r"different stock structure"),
    ),
    # The shop, or the item, as it is set up.
    Rule(_store, _codes("error_wms_shop_block_upate_stock", "cnsc_shop_block")),
    Rule(
        _store,
        _codes("error_shop", "error_param_shop_id_not_found", "error_perm_non_admin", "error_seller_under_penalty"),
    ),
    Rule(_store, pattern=_any_of(r"\b(CNSC|KRSC)\b", r"shop_?id is invalid")),
    Rule(
        _does_not_fit,
        _codes(
            "error_busi_cannot_edit_vsku",
            "error_edit_item_stock_for_item_has_model",
            # Its name speaks of a promotion, its message only of models.
            "error_in_item_promotion_nomodel_to_models",
        ),
    ),
    Rule(_gone, _codes("error_item_not_found", "error_item_not_belong_shop", "error_nil_shopid_or_itemid")),
    Rule(_gone, _codes("error_item_uneditable")),
    # What passes by itself.
    Rule(_locked, _codes("error_holiday_mode_change_stock"), everyone=True),
    Rule(_locked, pattern=_any_of(r"holiday", r"vacation"), everyone=True),
    Rule(
        _locked,
        _codes(
            "error_cannt_edit_stock_in_promotion",
            "error_promotion_cantnot_update_stock",
            "error_model_update_stock_model_in_promotion",
        ),
    ),
    Rule(_locked, pattern=_any_of(r"(under|in|is) (a |the )?promotion", r"campaign", r"flash sale")),
    # Doubt comes before every reading that would end an item: "not found, please try later" says nothing.
    Rule(_unsure, UNSURE_CODES),
    Rule(_unsure, _codes("duplicate_request")),
    Rule(
        _unsure,
        pattern=_any_of(
            r"try( again)? later",
            r"try again",
            r"taking some time",
            r"system (error|is busy|busy)",
            r"\binternal\b",
            r"interal error",
            r"time[d ]{0,2}out",
            r"too many connections",
            r"something wrong",
            r"bad gateway",
            r"service (is )?(temporarily )?unavailable",
        ),
    ),
    # The listing.
    Rule(
        _gone,
        pattern=_any_of(
            r"not exist",
            r"not found",
            r"(wrong|invalid|repeat(ed)?) (model|item|variation)[ _]?id",
            r"status is abnormal",
            r"\bdeleted\b",
            r"\bbanned\b",
        ),
    ),
    Rule(_does_not_fit, pattern=_any_of(r"invalid product setting", r"item has models")),  # the first: a kit [C]
    # It only says that the lists say more, and they have not come.
    Rule(_unsure, _codes(_WRAPPER), _any_of(r"\A\Z", r"update stock failed", r"failure_?list")),
)

_WHITELIST = "Refused before it came to Shopee (is this machine's address in the app's IP whitelist?)"


def _refused_at_the_door(said: Said) -> Outcome:
    """A setting of the app, but for what says that it will pass."""
    if said.retry_after_seconds is not None:
        return Throttled(said.retry_after_seconds, Scope.STORE, f"Refused before it came to Shopee: {said.words}")
    return Misconfigured(f"{_WHITELIST}: {said.words}", Scope.STORE)


STATUS_RULES: tuple[StatusRule, ...] = (
    # No redirect is followed. One that is for now only is a page of somebody's trouble or login, and nothing was
    # applied; any other is a wrong base_url, for every listing alike.
    StatusRule(302, 302, lambda said: Unavailable(f"Shopee redirects for now, is base_url right? {said.words}")),
    StatusRule(303, 303, lambda said: InDoubt(f"Shopee redirects for its answer: {said.words}")),
    StatusRule(307, 307, lambda said: Unavailable(f"Shopee redirects for now, is base_url right? {said.words}")),
    StatusRule(300, 399, lambda said: Misconfigured(f"Shopee redirects elsewhere: {said.words}", Scope.STORE)),
    StatusRule(401, 401, _token),
    StatusRule(403, 403, _refused_at_the_door),
    # The path is the same for every listing, so it is not the listing; and what stands before Shopee may lose its way
    # for a while, which must not stop every store until a person comes.
    StatusRule(404, 404, lambda said: Unavailable(f"There is no such address, is base_url right? {said.words}")),
    StatusRule(408, 408, lambda said: InDoubt(f"Shopee gave up waiting: {said.words}")),
    StatusRule(413, 413, lambda said: Rejected(f"Shopee finds the request too large: {said.words}")),
    StatusRule(415, 415, lambda said: Rejected(f"Shopee does not take this content type: {said.words}")),
)


def meaning(answered: Answered, answer: Envelope | None) -> Meaning:
    """What one answer means for a whole call. `answer` is None when no envelope could be read. 429 and 5xx mean the
    same whatever the body says."""
    came = said(answered, answer)
    if came.status == 429:
        return Meaning(_too_fast(came))
    if came.status >= 500:
        return Meaning(InDoubt(f"Shopee failed: {came.words}"))
    if answer is None:
        return Meaning(_not_shopees(came))
    if not answer.error:
        return Meaning(_claims_success(came))
    found = _by_rules(came)
    if _is_the_doors(came, found):
        return Meaning(_not_shopees(came))
    return found or Meaning(_refused(came))


def of_a_listing(answered: Answered, answer: Envelope, reason: str, *, others_taken: bool) -> Outcome:
    """What the `reason` of a refusal, as `words` give it, means for the one listing that it is given for.
    `others_taken`: of the same call something was taken, so that the store was surely let in."""
    came = said(answered, answer, reason)
    found = _by_rules(came) or Meaning(_refused(came))
    return _within_the_listing(found.outcome, came, plain=is_code(reason or answer.code) and not others_taken)


def _by_rules(came: Said) -> Meaning | None:
    return next((Meaning(rule.outcome(came), rule.everyone) for rule in RULES if rule.matches(came)), None)


def _is_the_doors(came: Said, found: Meaning | None) -> bool:
    """Whether an answer that has Shopee's form comes from what stands before Shopee. An unknown code of Shopee's own
    under 403 may well be about one listing."""
    if found is None:
        return came.status in {401, 404, 408} or (came.foreign and came.status == 403)
    return came.foreign and came.status in {401, 403, 404, 408} and isinstance(found.outcome, Rejected)


def _within_the_listing(outcome: Outcome, came: Said, *, plain: bool) -> Outcome:
    """One listing's reason hardly ever stops the store: only a code of Shopee's does, in a call that took nothing. Nor
    does it slow more than the store down, or for a day."""
    match outcome:
        case Misconfigured(message, scope=Scope.STORE) if not plain:
            return Misconfigured(message, Scope.LISTING)
        case Unauthorized(message) if not plain:
            return Misconfigured(message, Scope.LISTING)
        case Throttled(message=message):
            return Throttled(came.retry_after_seconds, Scope.STORE, message)
        case _:
            return outcome


def outcome(came: Answered | NotSent | NoAnswer) -> Outcome:
    """What became of a whole call."""
    match came:
        case NotSent(message):
            return Unavailable(message)
        case NoAnswer(message):
            return InDoubt(message)
        case Answered():
            return meaning(came, envelope(came.text.encode())).outcome
        case _:
            assert_never(came)


def seconds_until_quota_day(now: datetime) -> float:
    """Until the next midnight at UTC+8, when daily quotas begin again. Never 0."""
    there = now.astimezone(_QUOTA_DAY)
    midnight = there.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight - there).total_seconds()


def bare(code: str) -> str:
    """`product.error_param` -> `error_param`."""
    return _MODULE.sub("", code.lower(), count=1)


def is_code(text: str) -> bool:
    """Whether it looks like one of Shopee's codes."""
    return _CODE.fullmatch(text) is not None


def said(answered: Answered, answer: Envelope | None, reason: str | None = None) -> Said:
    """What rules look at; `reason` is one listing's."""
    code = "" if answer is None else answer.code
    message = ("" if answer is None else answer.said) if reason is None else reason
    spoken = ": ".join(part for part in (code, message) if part)
    foreign = reason is None and code != "" and not is_code(code)
    if not spoken:
        spoken = f"HTTP {answered.status}" if answer is None else f"HTTP {answered.status}, no reason given"
    return Said(
        code=bare(code if reason is None else _code_of_a_listing(code, reason)),
        message=spoken if foreign else message,
        words=spoken,
        status=answered.status,
        retry_after_seconds=answered.retry_after_seconds,
        at=answered.at,
        foreign=foreign,
    )


def _code_of_a_listing(code: str, reason: str) -> str:
    """The call's `code` only where there is no reason, and where it says more than that the update failed: a listing
    that stands among the failures has surely failed."""
    if reason:
        return reason if is_code(reason) else ""
    return "" if bare(code) == _WRAPPER else code


def _claims_success(said: Said) -> Outcome:
    if 200 <= said.status < 300:
        return Accepted()
    return InDoubt(f"Shopee's answer contradicts itself: {said.words}")


def _not_shopees(said: Said) -> Outcome:
    for rule in STATUS_RULES:
        if rule.first <= said.status <= rule.last:
            return rule.outcome(said)
    return InDoubt(f"Shopee's answer cannot be read: {said.words}")
