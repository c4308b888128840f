"""Starts and stops the sandbox; `lumbung sandbox` runs it as a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

from aiohttp import web

from lumbung.sandbox.blibli import Blibli
from lumbung.sandbox.bukalapak import Bukalapak
from lumbung.sandbox.control import Control
from lumbung.sandbox.errors import RefusedError, StartError, UnknownError
from lumbung.sandbox.faults import Faults
from lumbung.sandbox.front import BODY_BYTES_MAX, Front
from lumbung.sandbox.gate import Gate
from lumbung.sandbox.json_lines import JsonLines
from lumbung.sandbox.ledger import Ledger
from lumbung.sandbox.limits import Limits
from lumbung.sandbox.marketplace import Marketplace
from lumbung.sandbox.shopee.marketplace import Shopee
from lumbung.sandbox.traffic import Traffic

KEPT_MAX = 100_000
SHUTDOWN_SECONDS = 2.0


class Sandbox:
    """A running sandbox. `url` has no slash at its end; Blibli is below `{url}/blib/v2`, Bukalapak below
    `{url}/bklp/api` and `{url}/bklp/accounts`, Shopee below `{url}/shpe`."""

    url: str

    def __init__(
        self, *, write_log: JsonLines | None = None, call_log: JsonLines | None = None, kept_max: int = KEPT_MAX
    ):
        self.ledger = Ledger(kept_max=kept_max, write_log=write_log, call_log=call_log)
        marketplaces: tuple[Marketplace, ...] = (Blibli(), Bukalapak(self.ledger), Shopee(self.ledger))
        self._marketplaces = {one.channel: one for one in sorted(marketplaces, key=lambda one: one.channel)}
        self._stopping = asyncio.Event()
        self.faults = Faults(tuple(self._marketplaces))
        self.traffic = Traffic()
        self.limits = Limits(tuple(self._marketplaces))
        self._front = Front(self.ledger, self.faults, self.limits, self.traffic, self._stopping)
        self._control = Control(self.ledger, self.faults, self.limits, self.traffic, self._front, self._marketplaces)

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        write_log: Path | None = None,
        call_log: Path | None = None,
        kept_max: int = KEPT_MAX,
    ) -> AsyncIterator[Sandbox]:
        """Listens until the block ends; port 0 takes a free one. Raises StartError.

        `write_log` and `call_log`: files that get a line for each write that took effect, and for each call that has
        ended; one still in flight when the process is killed gets none.

        At the end, what waits (a late answer, a shut gate, a late write) is given up, and connections are closed.
        """
        with ExitStack() as files:
            writes, calls = _opened(files, write_log, "write log"), _opened(files, call_log, "call log")
            async with cls(write_log=writes, call_log=calls, kept_max=kept_max)._listening(host, port) as sandbox:
                yield sandbox

    @asynccontextmanager
    async def _listening(self, host: str, port: int) -> AsyncIterator[Sandbox]:
        runner = web.AppRunner(
            self._app(),
            access_log=None,
            auto_decompress=False,  # signatures are over the bytes as they came
            handler_cancellation=True,  # so that a late answer is not held for a client that has left
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
        try:
            await runner.setup()
            self.url = await _listen(runner, host, port)
            yield self
        finally:
            self._give_up_waiting()
            await runner.cleanup()

    def addresses(self) -> list[tuple[str, str, str]]:
        """(channel, what credentials files call it, URL) of each address that a marketplace has here."""
        return [
            (channel, name, f"{self.url}{path}")
            for channel, marketplace in self._marketplaces.items()
            for name, path in marketplace.mounts.items()
        ]

    def put_store(self, channel: str, store: str, settings: dict[str, object]) -> None:
        """As `PUT /_control/stores/{channel}/{store}` does; raises RefusedError or UnknownError."""
        if channel not in self._marketplaces:
            raise UnknownError(f"there is no channel {channel!r}; channels are {', '.join(self._marketplaces)}")
        self.ledger.put_store(self._marketplaces[channel].store(store, settings))

    @asynccontextmanager
    async def gate(self, channel: str) -> AsyncIterator[Gate]:
        """Holds every call of the channel, received and not yet judged, until `gate.open()` or the end of the block.

        A call whose client leaves meanwhile is carried out all the same.
        """
        if channel not in self._marketplaces:
            raise UnknownError(f"there is no channel {channel!r}; channels are {', '.join(self._marketplaces)}")
        if channel in self._front.gates:
            raise RefusedError(f"{channel} has a gate already; leave that one first")
        gate = self._front.gates[channel] = Gate()
        try:
            yield gate
        finally:
            del self._front.gates[channel]
            gate.open()

    async def reset(self, *, keep_stores: bool = False) -> None:
        """As `POST /_control/reset` does."""
        await self._control.reset(keep_stores=keep_stores)

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        for marketplace in self._marketplaces.values():
            app.add_routes(marketplace.routes(self._front.handler(marketplace)))
        app.add_routes(self._control.routes())
        return app

    def _give_up_waiting(self) -> None:
        self._stopping.set()
        self._front.drop_pending()
        for gate in self._front.gates.values():
            gate.give_up()
        self.ledger.let_go()


def _opened(files: ExitStack, path: Path | None, what: str) -> JsonLines | None:
    if path is None:
        return None
    return files.enter_context(closing(JsonLines(path, what)))


async def _listen(runner: web.AppRunner, host: str, port: int) -> str:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        reason = error.strerror or error
        raise StartError(f"cannot listen on {host}:{port} ({reason}); choose another port, or 0 for any") from error
    bound = runner.addresses[0][1]
    return f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"
