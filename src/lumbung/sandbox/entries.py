"""What the sandbox writes down. Times are unix seconds."""

from __future__ import annotations

import msgspec


class Write(msgspec.Struct, frozen=True, gc=False):
    """A write that took effect. `n` is its place in the order in which writes took effect; `location` is "" where the
    marketplace was told none; `quantity` is what the listing shows from now on, at that location; `call` is the number
    under which the call was received that made it, also when it took effect late."""

    n: int
    at: float
    channel: str
    store: str
    remote_variant: str
    location: str
    sku: str
    quantity: int
    call: int


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


class EndedCall(msgspec.Struct, frozen=True, gc=False):
    """A call on a marketplace's path: a line of the call log.

    `n` is its place in the order in which calls ended, `received` in the order in which they were received, which was
    `at`; its answer was ready, or its client had left, `duration_ms` later. `store` and `remote_variants` are what it
    says it is about; a page of a shop's listings says none. `caller` is the address that it came from. `status` is 0
    when no answer was sent. `fault` is the key of the fault set that changed the answer, "store_limit" when the call
    was over its store's own limit, "application_limit" when it was over its application's, or "".
    """

    n: int
    at: float
    channel: str
    store: str
    caller: str
    received: int
    remote_variants: tuple[str, ...]
    method: str
    path: str
    status: int
    duration_ms: float
    fault: str


class CallEntry(EndedCall, frozen=True, gc=False):
    """The same with its texts, as the control API shows it.

    `headers` are the shown ones, lower case, without secrets. The bodies are cut, empty where tokens stood in them, and
    stay bytes until somebody asks.
    """

    headers: dict[str, str]
    request_body: bytes
    response_body: bytes

    def line(self) -> EndedCall:
        """For the call log."""
        return EndedCall(
            self.n,
            self.at,
            self.channel,
            self.store,
            self.caller,
            self.received,
            self.remote_variants,
            self.method,
            self.path,
            self.status,
            self.duration_ms,
            self.fault,
        )

    def shown(self) -> dict[str, object]:
        """For the control API: the same keys, bodies as text (what is no UTF-8 shows as U+FFFD)."""
        shown: dict[str, object] = msgspec.structs.asdict(self)
        shown["request_body"] = self.request_body.decode("utf-8", "replace")
        shown["response_body"] = self.response_body.decode("utf-8", "replace")
        return shown
