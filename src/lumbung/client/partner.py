"""Signing and sending requests of the partner API over one keep-alive connection."""

from __future__ import annotations

import base64
import hmac
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """`reference` is the x-request-id that the hub's log has too."""

    status: int
    body: bytes
    reference: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def sign(secret: str, target: str, body: bytes) -> str:
    """base64(HMAC-SHA256(secret, target + body)); target is path and query exactly as they are sent."""
    return base64.b64encode(hmac.digest(secret.encode(), target.encode() + body, "sha256")).decode()


class PartnerClient:
    """Not thread-safe: one client a thread. Errors of the network are OSError and http.client.HTTPException; the client
    can be used again after one."""

    def __init__(self, url: str, partner_id: str, secret: str, *, timeout_seconds: float = 30.0):
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.netloc, timeout=timeout_seconds)
        self._prefix = parts.path.rstrip("/")
        self._partner_id = partner_id
        self._secret = secret

    def update_stocks(self, update: Mapping[str, object], *, idempotency_key: str | None = None) -> Answer:
        """POST /v1/partner/inventory/updatestocks with the fields of the contract."""
        headers = {"content-type": "application/json"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        return self._send("POST", "/v1/partner/inventory/updatestocks", json.dumps(update).encode(), headers)

    def history(self, *, limit: int = 100, offset: int = 0, updated_at: str | None = None) -> Answer:
        """GET /v1/partner/inventory/history, newest first."""
        query: dict[str, object] = {"limit": limit, "offset": offset}
        if updated_at is not None:
            query["updated_at"] = updated_at
        return self._send("GET", f"/v1/partner/inventory/history?{urlencode(query)}", b"", {})

    def close(self) -> None:
        self._connection.close()

    def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        target = self._prefix + path
        signed = {"partner-id": self._partner_id, "secret": sign(self._secret, target, body), **headers}
        try:
            self._connection.request(method, target, body=body or None, headers=signed)
            response = self._connection.getresponse()
            return Answer(response.status, response.read(), response.headers.get("x-request-id", ""))
        except (OSError, http.client.HTTPException):
            self._connection.close()  # the next request begins with a new connection
            raise
