"""Bukalapak's login: OAuth2 with a code that a merchant's browser brings, and refresh tokens.

    GET  {accounts_url}/oauth/authorize?client_id&redirect_uri&response_type=code&scope&state    in the browser
    POST {accounts_url}/oauth/token     form; grant_type authorization_code or refresh_token

Source: marketplaces.md section 5 [C], RFC 6749 for what it leaves open (sections 4.1, 5.1, 5.2 and 6). `state` carries
the store's id there and back, so that an agreement is not given to the wrong store.

A refresh token may work once. So an access token that has come is kept whatever stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar, assert_never
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import msgspec

from lumbung.channels.base import CallRecord, InDoubt, Refreshed, Throttled, Tokens, Unauthorized, Unavailable
from lumbung.channels.call import Answered, Called
from lumbung.channels.http import NoAnswer, NotSent
from lumbung.channels.redaction import redact
from lumbung.channels.text import strings_under, words
from lumbung.errors import BadRequest, Problem

# RFC 6749 lets a server leave `expires_in` out. A pair that we throw away for that may be the last one, so a short life
# is assumed [M]: the worst of it is a refresh too many.
LIFE_SECONDS_ASSUMED = 1800
LIFE_SECONDS_MAX = 10 * 365 * 86_400

REDIRECTED_CHARACTERS_MAX = 4096
_CODE = re.compile(r"[!-~]{1,1000}", re.ASCII)
_ACCESS = re.compile(r"[!-~]{1,16384}", re.ASCII)  # it goes into a header
_OF_THE_ANSWER = frozenset({"code", "state", "scope", "error", "error_description", "error_uri"})
_NO_SECRETS = frozenset({"token_type", "expires_in", "created_at", "scope", "error", "error_description"})

T = TypeVar("T")


class Granted(msgspec.Struct):
    """The fields of the token endpoint's answer that are used; all but the first may be anything."""

    access_token: str
    refresh_token: msgspec.Raw = msgspec.Raw(b"null")
    expires_in: msgspec.Raw = msgspec.Raw(b"null")

    def __repr__(self) -> str:
        return f"Granted(expires_in={bytes(self.expires_in[:100])!r})"


class Refused(msgspec.Struct):
    error: str
    error_description: str | None = None


def authorization_url(accounts_url: str, *, client_id: str, redirect: str, scope: str, shop_id: str) -> str:
    query = {
        "client_id": client_id,
        "redirect_uri": redirect,
        "response_type": "code",
        "scope": scope,
        "state": shop_id,
    }
    return f"{accounts_url}/oauth/authorize?{urlencode(query, quote_via=quote, safe='')}"


def code_form(redirected: str, shop_id: str) -> dict[str, str]:
    """What trades a code, from the whole address that the browser was sent to, or from the code alone.

    The address that the merchant was sent to has to be named once more, so the whole address is the safer one. Raises
    BadRequest, saying what is wrong.
    """
    text = redirected.strip()
    if len(text) > REDIRECTED_CHARACTERS_MAX:
        raise _wrong(f"is longer than {REDIRECTED_CHARACTERS_MAX} characters")
    if "://" not in text:
        return {"grant_type": "authorization_code", "code": _code(text)}
    try:
        parts = urlsplit(text)
    except ValueError:
        raise _wrong("is not an address") from None
    query = parse_qsl(parts.query, keep_blank_values=True)
    answer = dict(query)
    if "error" in answer:
        raise _wrong(f"holds no code: Bukalapak says {words(answer['error'])}")
    if answer.get("state", shop_id) != shop_id:
        raise _wrong("is about another store: open this store's own link")
    code = _code(answer.get("code", ""))
    rest = urlencode([(name, value) for name, value in query if name not in _OF_THE_ANSWER])
    redirect = urlunsplit((parts.scheme, parts.netloc, parts.path, rest, ""))
    return {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect}


def refresh_form(tokens: Tokens) -> dict[str, str]:
    return {"grant_type": "refresh_token", "refresh_token": tokens.refresh}


def traded(called: Called, old: Tokens | None) -> Refreshed:
    """What a call of the token endpoint gave. `old`: the pair that was traded, None for a code."""
    match called.came:
        case NotSent(message):
            return Refreshed(Unavailable(message), (called.record,))
        case NoAnswer(message):
            return Refreshed(InDoubt(message), (called.record,))
        case Answered(status, text, retry_after_seconds, at):
            granted = _granted(called.body, at, old) if 200 <= status < 300 else None
            new = strings_under(called.body, lambda name: "token" in name.lower() and name != "token_type")
            result = _refused(status, redact(text, new), retry_after_seconds) if granted is None else granted
            return Refreshed(result, (_without_tokens(called.record, called.body),))
        case _:
            assert_never(called.came)


def _granted(body: bytes, at: datetime, old: Tokens | None) -> Tokens | Unauthorized | None:
    granted = _read(body, Granted)
    if granted is None or not _ACCESS.fullmatch(granted.access_token):
        return None
    # Without a new refresh token the old one stays valid (RFC 6749, section 6).
    refresh = _read(granted.refresh_token, str) or (old.refresh if old is not None else "")
    if not refresh:
        message = "Bukalapak gave no refresh token: the application may not be allowed any, or the scope is wrong"
        return Unauthorized(message, refreshable=False)
    return Tokens(granted.access_token, refresh, at, at + timedelta(seconds=_life_seconds(granted.expires_in)))


def _life_seconds(expires_in: msgspec.Raw) -> float:
    try:
        seconds = float(_read(expires_in, float) or _read(expires_in, str) or 0)
    except ValueError:
        return LIFE_SECONDS_ASSUMED
    return seconds if 0 < seconds <= LIFE_SECONDS_MAX else LIFE_SECONDS_ASSUMED


def _refused(
    status: int, text: str, retry_after_seconds: float | None
) -> Throttled | Unavailable | InDoubt | Unauthorized:
    """Only a plain refusal is one: anything else may have used the old refresh token up."""
    if status == 429:
        return Throttled(retry_after_seconds)
    said = _read(text.encode(errors="replace"), Refused)
    if status == 404 and said is None:
        return Unavailable("Bukalapak's login is not there, is accounts_url right? HTTP 404")
    reason = words(": ".join(filter(None, (said.error, said.error_description)))) if said else f"HTTP {status}"
    if 400 <= status < 500 and status != 408:
        if said is not None and said.error in _REFUSALS:
            return Unauthorized(f"{_REFUSALS[said.error]}: {reason}", refreshable=False)
        if status in {401, 403}:
            message = "Bukalapak does not accept the application (check client_id, client_secret and user_agent)"
            return Unauthorized(f"{message}: {reason}", refreshable=False)
    return InDoubt(f"Bukalapak's login did not answer clearly: {reason}")


_REFUSALS: Mapping[str, str] = {
    "invalid_grant": "The authorisation is over or was used before, so the merchant must agree again",
    "invalid_client": "Bukalapak does not accept client_id or client_secret",
    "unauthorized_client": "Bukalapak does not let this application (client_id) do that",
    "access_denied": "The merchant has not agreed",
    "invalid_scope": "Bukalapak does not know the application's scope",
    "unsupported_grant_type": "Bukalapak does not let this application (client_id) do that",
}


def _read(body: bytes | msgspec.Raw, kind: type[T]) -> T | None:
    """None when it is not that."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _without_tokens(record: CallRecord, body: bytes) -> CallRecord:
    """The record as it may be kept: new tokens are secrets too. What cannot be read might hold one, so it is not kept;
    of the rest only what can be no secret."""
    kept = _read(record.response.encode(), dict[str, msgspec.Raw])
    if kept is None:
        return replace(record, response="")
    secrets = strings_under(body, lambda name: name not in _NO_SECRETS)
    shown = {name: raw if name in _NO_SECRETS else msgspec.Raw(b'"***"') for name, raw in kept.items()}
    return replace(record, response=redact(msgspec.json.encode(shown).decode(), secrets))


def _code(text: str) -> str:
    if not _CODE.fullmatch(text):
        raise _wrong("holds no code: paste the whole address that the browser shows in the end")
    return text


def _wrong(message: str) -> BadRequest:
    return BadRequest(f"What was pasted {message}", (Problem("redirected", message),))
