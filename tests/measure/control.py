"""The sandbox process's control API and its log of writes, as a measurement uses them."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from lumbung.sandbox.entries import Write

TIMEOUT_SECONDS = 120.0  # a million listings take a while to read
CHUNK_LISTINGS = 100_000
LOGIN = {
    "api_client_id": "lumbung-measure",
    "api_client_key": "client-key",
    "api_seller_key": "seller-key",
    "signature_key": "signature-key",
    "username": "merchant@example.test",
}


class Control:
    """`url` has no slash at its end; `write_log` is the file that gets a line for every write."""

    def __init__(self, url: str, write_log: Path):
        self.url = url
        self._write_log = write_log
        self._read_bytes = 0

    def credentials(self, store: str, *, calls_per_second: float = 1000) -> dict[str, str]:
        """What the hub has to know of a Blibli store here."""
        return credentials(store, f"{self.url}/blib/v2", calls_per_second=calls_per_second)

    def put_store(self, store: str, listings: Sequence[str]) -> None:
        """A Blibli store whose remote variants are these."""
        path = f"/_control/stores/blib/{store}"
        self._send("PUT", path, LOGIN)
        for first in range(0, len(listings), CHUNK_LISTINGS):
            rows = [{"remote_variant": one, "sku": one} for one in listings[first : first + CHUNK_LISTINGS]]
            self._send("POST", f"{path}/listings", {"listings": rows})

    def put_faults(self, **faults: object) -> None:
        self._send("PUT", "/_control/faults/blib", faults)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self._send("GET", "/_control/status", None))
        return found

    def new_writes(self) -> Iterator[Write]:
        """Those that were logged since the last time, in the order in which they took effect."""
        with self._write_log.open("rb") as file:
            file.seek(self._read_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is being written
                self._read_bytes += len(line)
                yield msgspec.json.decode(line, type=Write)

    def _send(self, method: str, path: str, value: object) -> bytes:
        body = None if value is None else msgspec.json.encode(value)
        status, answer = request(self.url, method, path, body)
        assert status == 200, f"{method} {path}: {status} {answer.decode(errors='replace')}"
        return answer


def credentials(store: str, base_url: str, *, calls_per_second: float = 1000) -> dict[str, str]:
    own = {"store_code": store, "base_url": base_url, "calls_per_second": f"{calls_per_second:g}"}
    return {**LOGIN, **own}


def answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        status, _ = request(url, "GET", parts.path)
    except (OSError, http.client.HTTPException):
        return False
    return status == 200


def request(url: str, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, path, body=body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
