"""A marketplace that can answer everything a marketplace can, over real HTTP, as tests script it.

    POST /push {"items": [{"id", "quantity", "expected", "locations"}]} -> {"rows": [{"id", "outcome", ...}]}
    GET /jobs/{handle} -> the same rows, 404 when the job is forgotten
    POST /read {"ids": [...]}                                           -> {"rows": [{"id", "outcome", ...}]}
    POST /token {"refresh"} -> {"access", "refresh", "access_seconds", "refresh_seconds"}, or 400 invalid_grant
    GET /ping -> {}

`X-Account` names the account; all but /token need `Authorization: Bearer`. An answer for a whole call is
{"error": ..., "message": ...}; 503 with the error "maintenance" is documented to have had no effect.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Self

import msgspec
from aiohttp import web

from .market_account import Account, Call, Fault, Item, Route

ACCOUNT = "toko"
PAGE = b"<html>Something went wrong</html>"
SHUTDOWN_SECONDS = 0.05


class PushBody(msgspec.Struct):
    items: tuple[Item, ...]


class ReadBody(msgspec.Struct):
    ids: tuple[str, ...]


class TokenBody(msgspec.Struct):
    refresh: str


@dataclass(frozen=True, slots=True)
class Visit:
    """A call under way, with what its body says."""

    route: Route
    items: tuple[Item, ...] = ()
    ids: tuple[str, ...] = ()
    handle: str = ""
    refresh: str = ""

    @property
    def pushed(self) -> tuple[str, ...]:
        return tuple(item.id for item in self.items)


@dataclass(frozen=True, slots=True)
class Reply:
    """`status` 0: the connection is reset."""

    status: int
    body: bytes = b""
    retry_after_seconds: float | None = None


class Market:
    """`url` stays the same while the market is away and after."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._stopping = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def account(self, name: str = ACCOUNT) -> Account:
        """The account of this name; made when it is not there."""
        return self.accounts.setdefault(name, Account(name))

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._stopping = True
        for account in self.accounts.values():
            account.give_up()
        await self._close()

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Connections are refused until the end of the block; what is held at a gate is dropped."""
        await self._close()
        try:
            yield
        finally:
            await self._listen()

    async def _listen(self) -> None:
        app = web.Application()
        app.router.add_post("/push", self._push)
        app.router.add_get("/jobs/{handle}", self._jobs)
        app.router.add_post("/read", self._read)
        app.router.add_post("/token", self._token)
        app.router.add_get("/ping", self._ping)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    # --- Routes ---

    async def _push(self, request: web.Request) -> web.StreamResponse:
        body = msgspec.json.decode(await request.read(), type=PushBody)
        visit = Visit("/push", items=body.items, ids=tuple(item.id for item in body.items))
        return await self._serve(request, visit)

    async def _jobs(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, Visit("/jobs", handle=request.match_info["handle"]))

    async def _read(self, request: web.Request) -> web.StreamResponse:
        body = msgspec.json.decode(await request.read(), type=ReadBody)
        return await self._serve(request, Visit("/read", ids=body.ids))

    async def _token(self, request: web.Request) -> web.StreamResponse:
        body = msgspec.json.decode(await request.read(), type=TokenBody)
        return await self._serve(request, Visit("/token", refresh=body.refresh))

    async def _ping(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, Visit("/ping"))

    # --- The way of one call ---

    async def _serve(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        at = time.monotonic()
        account = self.accounts.get(request.headers.get("X-Account", ""))
        if account is None:
            return respond(request, json_reply(401, {"error": "dead", "message": "no such account"}))
        account.enter(visit.pushed)
        reply = Reply(0)
        try:
            reply = await self._reply(account, visit, request.headers.get("Authorization", ""))
        finally:
            # Before the answer leaves: whoever has the answer finds the call in the log, and out of flight.
            account.leave(visit.pushed)
            account.note(Call(visit.route, visit.ids, visit.items, reply.status, at))
        return respond(request, reply)

    async def _reply(self, account: Account, visit: Visit, authorization: str) -> Reply:
        wrong = "" if visit.route == "/token" else account.tokens.wrong(authorization.removeprefix("Bearer "))
        if wrong:
            return json_reply(401, {"error": wrong, "message": f"the access token is {wrong}"})
        await account.hold(visit.route, after=False)
        if self._stopping:
            return Reply(0)
        fault = account.next_fault(visit.route, visit.pushed)
        reply = act(account, visit) if fault is None or fault.applied else Reply(0)
        await account.hold(visit.route, after=True)
        return reply if fault is None else fault_reply(fault)


def act(account: Account, visit: Visit) -> Reply:
    match visit.route:
        case "/push":
            return json_reply(200, {"rows": account.push(visit.items)})
        case "/jobs":
            rows = account.ask(visit.handle)
            return json_reply(404, {"error": "no such job"}) if rows is None else json_reply(200, {"rows": rows})
        case "/read":
            return json_reply(200, {"rows": account.read(visit.ids)})
        case "/token":
            pair = account.tokens.rotate(visit.refresh)
            return json_reply(400, {"error": "invalid_grant"}) if pair is None else json_reply(200, asdict(pair))
        case "/ping":
            return json_reply(200, {})


def fault_reply(fault: Fault) -> Reply:
    match fault.how:
        case "drop":
            return Reply(0)
        case "garbage":
            return Reply(200, PAGE)
        case status:
            return Reply(status, msgspec.json.encode(fault.body), fault.retry_after_seconds)


def json_reply(status: int, body: Mapping[str, object]) -> Reply:
    return Reply(status, msgspec.json.encode(body))


def respond(request: web.Request, reply: Reply) -> web.StreamResponse:
    if reply.status == 0:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
    # No connection is kept: one that closes while it is idle would make the next call unclear, by chance.
    headers = {"Connection": "close"}
    if reply.retry_after_seconds is not None:
        headers["Retry-After"] = f"{reply.retry_after_seconds:g}"
    return web.Response(status=reply.status, body=reply.body, headers=headers, content_type="application/json")
