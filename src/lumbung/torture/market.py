"""The sandbox's control API, as the fault test uses it. Blocking; call it from a thread."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from lumbung.errors import LumbungError

TIMEOUT_SECONDS = 30.0


class Market:
    """`url`: of the sandbox itself, past every proxy."""

    def __init__(self, url: str):
        self._address = urlsplit(url).netloc

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("GET", "/_control/status")
        return found

    def put_store(self, channel: str, store: str, settings: Mapping[str, object]) -> None:
        self._ask("PUT", f"/_control/stores/{channel}/{quote(store)}", settings)

    def limit(self, channel: str, store: str, calls_per_second: float) -> None:
        """A second's worth of calls at once, as stores here are told of themselves."""
        limit = {"calls_per_s": calls_per_second, "burst": max(1, int(calls_per_second))}
        self._ask("PUT", f"/_control/stores/{channel}/{quote(store)}/limit", limit)

    def limit_application(self, channel: str, name: str, calls_per_second: float, burst: float) -> None:
        limit = {"calls_per_s": calls_per_second, "burst": max(1.0, burst)}
        self._ask("PUT", f"/_control/applications/{channel}/{quote(name)}/limit", limit)

    def spoil(self, channel: str, store: str, remote_variant: str, condition: str) -> None:
        """`condition`: unknown, banned, locked or failing."""
        body = {"channel": channel, "store": store, "remote_variant": remote_variant, "condition": condition}
        self._ask("PUT", "/_control/listings", body)

    def misbehave(self, channel: str, faults: Mapping[str, object]) -> None:
        self._ask("PUT", f"/_control/faults/{channel}", faults)

    def behave(self) -> None:
        self._ask("DELETE", "/_control/faults")

    def revoke(self, channel: str, store: str) -> None:
        self._ask("POST", f"/_control/stores/{channel}/{quote(store)}/revoke")

    def agree(self, channel: str, store: str) -> None:
        """The tokens that the store was put with work again."""
        self._ask("POST", f"/_control/stores/{channel}/{quote(store)}/agree")

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(
                method,
                path,
                body=None if body is None else json.dumps(body).encode(),
                headers={"content-type": "application/json"},
            )
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status >= 300:
            raise LumbungError(f"The sandbox refused {method} {path}: {text.decode(errors='replace')}")
        return json.loads(text) if text else None
