"""What the sandbox writes down. Times are unix seconds."""

from __future__ import annotations

import msgspec


class Write(msgspec.Struct, frozen=True, gc=False):
    """A write that took effect. `n` is its place in the order in which writes took effect; `location` is "" where the
    marketplace was told none; `quantity` is what the listing shows from now on, at that location."""

    n: int
    at: float
    channel: str
    store: str
    remote_variant: str
    location: str
    sku: str
    quantity: int


class Sale(msgspec.Struct, frozen=True, gc=False):
    """A customer bought `quantity` units; `left` is what the listing shows from now on."""

    n: int
    at: float
    channel: str
    store: str
    remote_variant: str
    sku: str
    quantity: int
    left: int


class CallEntry(msgspec.Struct, frozen=True, gc=False):
    """A call on a marketplace's path; `n` is its place in the order in which calls ended, `at` when it was received.

    `status` is 0 when no answer was sent. `fault` is the key of the fault set that changed the answer, or "".
    `headers` are the shown ones, lower case, without secrets. The bodies are cut, empty where tokens stood in them, and
    stay bytes until somebody asks.
    """

    n: int
    at: float
    channel: str
    store: str
    method: str
    path: str
    status: int
    duration_ms: float
    headers: dict[str, str]
    request_body: bytes
    response_body: bytes
    fault: str

    def shown(self) -> dict[str, object]:
        """For the control API: the same keys, bodies as text (what is no UTF-8 shows as U+FFFD)."""
        shown: dict[str, object] = msgspec.structs.asdict(self)
        shown["request_body"] = self.request_body.decode("utf-8", "replace")
        shown["response_body"] = self.response_body.decode("utf-8", "replace")
        return shown
