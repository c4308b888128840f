"""What every channel checks of a store's credentials before it calls anyone: the same rules and messages for all.

A credentials file is a flat mapping of strings; its fields are listed in the channel's manifest. `base_url`, and any
other address, may only point at the marketplace's own hosts or at this machine (the sandbox): whoever may edit a
store's credentials could otherwise make Lumbung call any address inside the merchant's network.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from lumbung.channels.base import Manifest
from lumbung.errors import ConfigurationError, Problem

VALUE_CHARACTERS_MAX = 4096
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,30}", re.ASCII)
_PRINTABLE = re.compile(r"[!-~]*", re.ASCII)


@dataclass(slots=True)
class CredentialReader:
    """Reads fields and collects every problem; `finish` raises them all at once as one ConfigurationError."""

    manifest: Manifest
    values: Mapping[str, str]
    _problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        known = {entry.name for entry in self.manifest.credentials}
        for name in self.values:
            if name not in known:
                self._wrong(name, f"is not a field of {self.manifest.name}; the fields are {', '.join(sorted(known))}")
        for entry in self.manifest.credentials:
            value = self.values.get(entry.name, "")
            if entry.required and not value.strip():
                self._wrong(entry.name, f"is missing: {entry.help}")
            elif len(value) > VALUE_CHARACTERS_MAX:
                self._wrong(entry.name, f"is longer than {VALUE_CHARACTERS_MAX} characters")
            elif not value.isprintable():
                self._wrong(entry.name, "contains a line break or another control character")

    def text(self, name: str, default: str = "") -> str:
        """The value without surrounding spaces; `default` when it is absent or empty."""
        return self.values.get(name, "").strip() or default

    def header(self, name: str, *, spaces: bool = False) -> str:
        """A value that is sent as a header: visible ASCII only, and `spaces` where the header has words."""
        value = self.text(name)
        if not _PRINTABLE.fullmatch(value.replace(" ", "") if spaces else value):
            without = "" if spaces else ", without spaces"
            self._wrong(name, f"may contain only visible ASCII characters{without}")
        return value

    def yes(self, name: str) -> bool:
        """Whether the value is `yes`; absent, empty and `no` are no."""
        value = self.text(name, "no")
        if value not in {"yes", "no"}:
            self._wrong(name, "must be yes or no")
        return value == "yes"

    def whole_number(self, name: str, *, at_most: int) -> int:
        """A whole number above 0, digits only; 0 when it is absent."""
        text = self.text(name)
        if not text:
            return 0
        value = int(text) if _DIGITS.fullmatch(text) else 0
        if not 0 < value <= at_most:
            self._wrong(name, "must be a whole number above 0, digits only")
            return 0
        return value

    def number(self, name: str, default: float, *, above: float, at_most: float) -> float:
        """A number greater than `above` and not greater than `at_most`."""
        text = self.text(name)
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not above < value <= at_most:
            self._wrong(name, f"must be a number above {above:g} and at most {at_most:g}")
            return default
        return value

    def base_url(self, default: str, name: str = "base_url") -> str:
        """The address in the field `name`, put together again from its checked parts, without a trailing slash."""
        text = self.text(name, default)
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            self._wrong(name, "is not a URL")
            return default
        local = _is_loopback(host)
        if not self._is_plain(parts) or not (local or (parts.scheme == "https" and host in self.manifest.hosts)):
            self._wrong(
                name,
                f"must be https on {' or '.join(self.manifest.hosts)} (or a sandbox on this machine, such as "
                f"http://127.0.0.1:8700/{self.manifest.code}), with a plain path and nothing else",
            )
            return default
        named = f"[{host}]" if ":" in host else host
        return f"{parts.scheme}://{named}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"

    def finish(self) -> None:
        """Raises ConfigurationError that names every field with a problem, never its value."""
        if self._problems:
            text = "; ".join(f"{problem.field} {problem.message}" for problem in self._problems)
            raise ConfigurationError(f"Credentials of {self.manifest.name}: {text}", tuple(self._problems))

    @staticmethod
    def _is_plain(parts: SplitResult) -> bool:
        return (
            parts.scheme in {"http", "https"}
            and "@" not in parts.netloc
            and not parts.query
            and not parts.fragment
            and _PATH.fullmatch(parts.path.rstrip("/")) is not None
        )

    def _wrong(self, name: str, message: str) -> None:
        self._problems.append(Problem(name, message))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
