"""The token pairs of one account: an access token that expires, and a refresh token that works once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

ACCESS_SECONDS = 4 * 3600.0
REFRESH_SECONDS = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Pair:
    access: str
    refresh: str
    access_seconds: float
    refresh_seconds: float


@dataclass(slots=True)
class TokenBook:
    """`offset_seconds` is how far this account's clock is ahead; the lifetimes hold for pairs that are issued later."""

    account: str
    access_seconds: float = ACCESS_SECONDS
    refresh_seconds: float = REFRESH_SECONDS
    offset_seconds: float = 0.0
    issued: list[Pair] = field(default_factory=list)
    _access: dict[str, float] = field(default_factory=dict)
    _refresh: dict[str, float] = field(default_factory=dict)

    @property
    def api_key(self) -> str:
        """Works like an access token and lasts for ever."""
        return f"api-key-of-{self.account}"

    def issue(self) -> Pair:
        """A new pair, as when the merchant logs in; earlier pairs stay as they are."""
        n = len(self.issued) + 1
        pair = Pair(
            f"access-{n}-of-{self.account}", f"refresh-{n}-of-{self.account}", self.access_seconds, self.refresh_seconds
        )
        self.issued.append(pair)
        self._access[pair.access] = self._now() + pair.access_seconds
        self._refresh[pair.refresh] = self._now() + pair.refresh_seconds
        return pair

    def rotate(self, refresh: str) -> Pair | None:
        """The next pair; None for a refresh token that was used, has expired or was never given out."""
        expires = self._refresh.pop(refresh, None)
        return None if expires is None or expires <= self._now() else self.issue()

    def wrong(self, bearer: str) -> Literal["", "expired", "dead"]:
        """What is wrong with a token that came with a call."""
        if bearer == self.api_key:
            return ""
        expires = self._access.get(bearer)
        if expires is None:
            return "dead"
        return "expired" if expires <= self._now() else ""

    def expire_access(self) -> None:
        self._access = dict.fromkeys(self._access, self._now())

    def kill_access(self) -> None:
        self._access.clear()

    def kill_refresh(self) -> None:
        self._refresh.clear()

    def _now(self) -> float:
        return time.monotonic() + self.offset_seconds
