"""The way of one call: received, delayed, judged, applied, answered, written down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from lumbung.sandbox.call import Answer, Call, Target, Verdict
from lumbung.sandbox.entries import CallEntry
from lumbung.sandbox.faults import ArmedFaults, Faults, RowFaults
from lumbung.sandbox.gate import Gate
from lumbung.sandbox.ledger import Ledger
from lumbung.sandbox.limits import APPLICATION_LIMIT, STORE_LIMIT, Limits
from lumbung.sandbox.marketplace import Handler, ListingFailsError, Marketplace
from lumbung.sandbox.traffic import Traffic

BODY_BYTES_MAX = 1024 * 1024
KEPT_BYTES_MAX = 4 * 1024
NO_ROW_FAULTS: RowFaults = {}
DAY_SECONDS = 86_400
THROTTLES = frozenset(
    {"throttle_rate", "rate_limit_per_s", "application_rate_limit_per_s", "quota_calls", STORE_LIMIT, APPLICATION_LIMIT}
)
QUOTA_ZONE_SECONDS = 8 * 3600  # quotas begin anew at midnight in UTC+8


class Outcome(msgspec.Struct, frozen=True):
    """What the client gets: an answer, after `hold_s` more seconds; or, without one, a connection that is reset."""

    answer: Answer | None
    fault: str = ""
    hold_s: float = 0


class Visit(msgspec.Struct, frozen=True):
    """One call under way. `number` is its place in the order of receipt, `caller` the address that it came from;
    `received_s` is monotonic; `over`: the limit that it is over, as a fault's name, or ""."""

    marketplace: Marketplace
    call: Call
    target: Target
    armed: ArmedFaults | None
    received_s: float
    era: int
    number: int
    caller: str
    over: str


class Front:
    """Takes the calls of every marketplace. `stopping` ends all waiting at once."""

    def __init__(self, ledger: Ledger, faults: Faults, limits: Limits, traffic: Traffic, stopping: asyncio.Event):
        self.gates: dict[str, Gate] = {}
        self._ledger = ledger
        self._faults = faults
        self._limits = limits
        self._traffic = traffic
        self._stopping = stopping
        self._work: set[asyncio.Task[Outcome]] = set()
        self._late: set[asyncio.TimerHandle] = set()

    def handler(self, marketplace: Marketplace) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._receive(marketplace, request)

        return handle

    @property
    def late_pending(self) -> int:
        """Writes that are still to be applied, long after their call was received."""
        return len(self._late)

    def drop_pending(self) -> None:
        """What was received and has not taken effect yet never will; the connections concerned are closed."""
        for task in self._work:
            task.cancel()
        for handle in self._late:
            handle.cancel()
        self._late.clear()

    async def _receive(self, marketplace: Marketplace, request: web.Request) -> web.StreamResponse:
        armed = self._faults.armed(marketplace.channel)
        if armed is not None and not armed.concerns(request.raw_path.partition("?")[0]):
            armed = None
        if armed is not None and armed.faults.down:
            outcome: Outcome = Outcome(None, "down")
            visit = self._visit(marketplace, request, armed, b"")
            armed.spend()
            self._record(visit, outcome)
            return _respond(request, outcome)
        status, body = await _read(request)
        visit = self._visit(marketplace, request, armed, body)
        outcome = Outcome(None)
        self._traffic.enter(marketplace.channel, visit.target)
        try:
            outcome = await self._outcome(visit, status)
            if outcome.hold_s:
                outcome = await self._hold(outcome)
        except asyncio.CancelledError:
            outcome = Outcome(None, outcome.fault)
            raise
        finally:
            # Before the answer leaves: whoever has the answer finds the call in the log, and out of flight.
            self._traffic.leave(marketplace.channel, visit.target)
            self._record(visit, outcome)
        return _respond(request, outcome)

    def _visit(self, marketplace: Marketplace, request: web.Request, armed: ArmedFaults | None, body: bytes) -> Visit:
        call = _call(request, body, self._ledger.clock.now())
        target, received_s = marketplace.target(call), time.monotonic()
        return Visit(
            marketplace,
            call,
            target,
            armed,
            received_s,
            self._ledger.era,
            number=self._ledger.receive(),
            caller=request.remote or "",
            over=self._limits.exceeded(marketplace.channel, target.store, target.application, received_s),
        )

    async def _outcome(self, visit: Visit, status: int) -> Outcome:
        if status != 200 and not visit.over:
            return Outcome(visit.marketplace.refusal(visit.call, status))
        fault = self._draw(visit)
        delay_s = visit.armed.faults.latency_ms / 1000 if visit.armed is not None else 0
        gate = self.gates.get(visit.marketplace.channel)
        if not delay_s and gate is None:
            return self._decide(visit, fault)
        # A task of its own: what was received is carried out even when the client does not wait for it.
        return await asyncio.shield(self._spawn(self._decide_later(visit, fault, delay_s, gate)))

    def _draw(self, visit: Visit) -> str:
        armed = visit.armed
        if visit.over:
            if armed is not None and armed.faults.latency_ms:
                armed.spend()
            return visit.over
        if armed is None:
            return ""
        store = self._ledger.find_store(visit.marketplace.channel, visit.target.store)
        # All unknown stores share one bucket, so that a stream of made-up names takes no memory.
        day = int((visit.call.now + QUOTA_ZONE_SECONDS) // DAY_SECONDS)
        application = visit.target.application if store is not None else ""
        fault = armed.draw(store.name if store is not None else "", application, visit.received_s, day)
        if fault or armed.faults.latency_ms:
            armed.spend()
        return fault

    async def _decide_later(self, visit: Visit, fault: str, delay_s: float, gate: Gate | None) -> Outcome:
        if delay_s:
            await self._pause(delay_s)
        if gate is not None:
            await gate.hold()
        if self._stopping.is_set():
            return Outcome(None, fault)
        outcome = self._decide(visit, fault)
        return msgspec.structs.replace(outcome, fault=outcome.fault or ("latency_ms" if delay_s else ""))

    def _decide(self, visit: Visit, fault: str) -> Outcome:
        armed, refusal = visit.armed, visit.marketplace.refusal
        if fault in THROTTLES:
            quota = fault == "quota_calls"
            refused = visit.marketplace.quota_refusal(visit.call) if quota else refusal(visit.call, 429)
            retry_after_s = armed.faults.retry_after_s if armed is not None else None
            return Outcome(msgspec.structs.replace(refused, retry_after_s=retry_after_s), fault)
        if armed is None or not fault:
            return self._behave(visit)
        if fault == "error_rate":
            return Outcome(refusal(visit.call, armed.error_status()), fault)
        return self._judge_and_misbehave(visit, armed, fault)

    def _judge_and_misbehave(self, visit: Visit, armed: ArmedFaults, fault: str) -> Outcome:
        """The faults that leave the caller in doubt about what was applied."""
        verdict = self._judge(visit)
        match fault:
            case "timeout_rate":
                return self._answer_too_late(visit, armed, verdict)
            case "garbage_rate":
                if armed.coin():
                    self._apply(visit, verdict)
                return Outcome(armed.garble(verdict.answer), fault)
            case "apply_then_5xx_rate":
                self._apply(visit, verdict)
                return Outcome(visit.marketplace.refusal(visit.call, 500), fault)
            case "drop_response_rate":
                self._apply(visit, verdict)
                return Outcome(None, fault)
            case _:
                raise AssertionError(f"no such fault: {fault}")

    def _behave(self, visit: Visit) -> Outcome:
        verdict = self._judge(visit)
        self._apply(visit, verdict)
        if not verdict.struck or visit.armed is None:
            return Outcome(verdict.answer)
        if not visit.armed.faults.latency_ms:  # then it has been spent at receipt
            visit.armed.spend()
        return Outcome(verdict.answer, "row_faults" if visit.armed.faults.row_faults else "reject_skus")

    def _answer_too_late(self, visit: Visit, armed: ArmedFaults, verdict: Verdict) -> Outcome:
        waited_s = time.monotonic() - visit.received_s
        if armed.faults.late_apply_ms:
            self._apply_in(armed.faults.late_apply_ms / 1000 - waited_s, visit, verdict)
        else:
            self._apply(visit, verdict)
        return Outcome(verdict.answer, "timeout_rate", max(0.0, armed.faults.timeout_ms / 1000 - waited_s))

    def _judge(self, visit: Visit) -> Verdict:
        row_faults = visit.armed.row_faults if visit.armed is not None else NO_ROW_FAULTS
        try:
            return visit.marketplace.judge(visit.call, self._ledger, row_faults)
        except ListingFailsError as error:
            return Verdict(visit.marketplace.refusal(visit.call, 500), struck=error.struck)

    def _apply(self, visit: Visit, verdict: Verdict) -> None:
        for change in verdict.changes:
            self._ledger.apply(change, visit.number)
        if verdict.effect is not None:
            verdict.effect()

    def _apply_in(self, seconds: float, visit: Visit, verdict: Verdict) -> None:
        if not verdict.changes and verdict.effect is None:
            return

        def apply_now() -> None:
            self._late.discard(handle)
            self._apply(visit, verdict)

        handle = asyncio.get_running_loop().call_later(max(0.0, seconds), apply_now)
        self._late.add(handle)

    async def _hold(self, outcome: Outcome) -> Outcome:
        await self._pause(outcome.hold_s)
        return Outcome(None, outcome.fault) if self._stopping.is_set() else outcome

    async def _pause(self, seconds: float) -> None:
        """Waits; less when the sandbox stops."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    def _spawn(self, work: Coroutine[object, object, Outcome]) -> asyncio.Task[Outcome]:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    def _record(self, visit: Visit, outcome: Outcome) -> None:
        if visit.era != self._ledger.era:  # a reset came in between: this call belongs to what was forgotten
            return
        call, answer = visit.call, outcome.answer
        self._ledger.end(
            CallEntry(
                n=self._ledger.calls.last + 1,
                at=call.now,
                channel=visit.marketplace.channel,
                store=visit.target.store,
                caller=visit.caller,
                received=visit.number,
                remote_variants=visit.target.remote_variants,
                method=call.method,
                path=call.path,
                status=answer.status if answer is not None else 0,
                duration_ms=(time.monotonic() - visit.received_s) * 1000,
                headers=_shown(call, visit.marketplace.headers_shown),
                request_body=b"" if visit.target.is_secret else call.body[:KEPT_BYTES_MAX],
                response_body=b"" if visit.target.is_secret or answer is None else answer.body[:KEPT_BYTES_MAX],
                fault=outcome.fault,
            )
        )


async def _read(request: web.Request) -> tuple[int, bytes]:
    """200 with the body, 413 when it is too large, 400 when it breaks off or its chunks are no chunks."""
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        return 413, b""
    except web.RequestPayloadError:
        return 400, b""
    return (200, body) if len(body) <= BODY_BYTES_MAX else (413, b"")


def _call(request: web.Request, body: bytes, now: float) -> Call:
    path, _, query = _text(request.raw_path).partition("?")
    return Call(
        method=request.method,
        path=path,
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers=request.headers,
        body=body,
        now=now,
    )


def _shown(call: Call, names: tuple[str, ...]) -> dict[str, str]:
    return {name: _text(value) for name in names if (value := call.headers.get(name)) is not None}


def _text(received: str) -> str:
    """Text that can be written as JSON: the server hands over bytes beyond ASCII as surrogates."""
    if received.isascii():
        return received
    return received.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _respond(request: web.Request, outcome: Outcome) -> web.StreamResponse:
    answer = outcome.answer
    if answer is None:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
    headers = {"Content-Type": answer.content_type}
    if answer.retry_after_s is not None:
        headers["Retry-After"] = str(answer.retry_after_s)
    if answer.location:
        headers["Location"] = answer.location
    return web.Response(status=answer.status, body=answer.body, headers=headers)
