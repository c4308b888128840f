"""The tokens of one shop [D, section 1.3]. Times are unix seconds of the sandbox's clock."""

from __future__ import annotations

import secrets

import msgspec

GRACE_SECONDS = 300
CODE_SECONDS = 600
REMEMBERED_MAX = 1_000


class Pair(msgspec.Struct, frozen=True):
    access_token: str
    refresh_token: str


def new_pair() -> Pair:
    return Pair(secrets.token_hex(16), secrets.token_hex(16))


def new_code() -> str:
    return secrets.token_hex(16)


class Tokens:
    """An access token lives `access_seconds`; the refresh token lives `refresh_seconds`, works once, and brings a new
    pair. What was the access token until then lives five more minutes, at most until its own end.

    `linked`: the shop's authorisation stands. A token pair that the control API gives makes it so, and so does a code.
    """

    def __init__(self, access_seconds: float, refresh_seconds: float):
        self.access_seconds = access_seconds
        self._refresh_seconds = refresh_seconds
        self.linked = False
        self.authorized_at = 0.0
        # Ends of access tokens, those that are past included: "expired" and "never heard of" are answered differently.
        self._access_until: dict[str, float] = {}
        self._refresh_token = ""
        self._refresh_until = 0.0
        self._code_until: dict[str, float] = {}

    def give(self, access_token: str | None, refresh_token: str | None, now: float) -> None:
        """The tokens of the control API, issued now; whatever was issued before is forgotten."""
        self._access_until.clear()
        self._code_until.clear()
        self._refresh_token = refresh_token or ""
        self._refresh_until = now + self._refresh_seconds
        self.linked = bool(access_token or refresh_token)
        self.authorized_at = now
        if access_token:
            self._access_until[access_token] = now + self.access_seconds

    def knows(self, access_token: str) -> bool:
        """Whether it was ever issued, as far as that is remembered."""
        return access_token in self._access_until

    def is_valid(self, access_token: str, now: float) -> bool:
        return self.linked and now < self._access_until.get(access_token, 0.0)

    def is_current(self, refresh_token: str) -> bool:
        """Whether it is the one that was issued last and not used yet; it may be past its end."""
        return bool(self._refresh_token) and secrets.compare_digest(
            refresh_token.encode("utf-8", "surrogateescape"), self._refresh_token.encode()
        )

    def has_died(self, now: float) -> bool:
        """Whether the current refresh token is past its end."""
        return now >= self._refresh_until

    def refresh(self, refresh_token: str, pair: Pair, now: float) -> None:
        """The refresh token is used up and the pair issued. Nothing happens when it was used up in the meantime."""
        if self.linked and self.is_current(refresh_token):
            self._issue(pair, now)

    def add_code(self, code: str, now: float) -> None:
        self._code_until[code] = now + CODE_SECONDS

    def takes_code(self, code: str, now: float) -> bool:
        return now < self._code_until.get(code, 0.0)

    def trade_code(self, code: str, pair: Pair, now: float) -> None:
        """The code is used up and the pair issued: the shop is linked. Nothing happens when it was used up already."""
        if self._code_until.pop(code, None) is None:
            return
        self.linked = True
        self.authorized_at = now
        self._issue(pair, now)

    def revoke(self) -> None:
        """The seller withdraws: what was issued is dead, codes included."""
        self.linked = False
        self._refresh_token = ""
        self._access_until = dict.fromkeys(self._access_until, 0.0)
        self._code_until.clear()

    def _issue(self, pair: Pair, now: float) -> None:
        for token, until in self._access_until.items():
            self._access_until[token] = min(until, now + GRACE_SECONDS)
        while len(self._access_until) >= REMEMBERED_MAX:
            del self._access_until[next(iter(self._access_until))]
        self._access_until[pair.access_token] = now + self.access_seconds
        self._refresh_token = pair.refresh_token
        self._refresh_until = now + self._refresh_seconds
