"""A marketplace that takes everything at once: `python -m lumbung.bench.stub --port 9000 --wait-ms 0`.

It answers Blibli's and Shopee's stock updates as those do, and does nothing else, so that it costs as little as may be
of the machine that it shares. The sandbox (lumbung/sandbox/) is the one that behaves like a marketplace.

    GET /counts      calls and listings so far
    GET /receipts    [[unix seconds, quantity], ...] of what came since it was last asked (with --receipts)
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Callable
from time import time
from typing import cast

import msgspec

from lumbung.bench import child

HOST = "127.0.0.1"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_QUANTITY = re.compile(rb'"(?:availableStock|stock)": *(\d+)')
_BLIBLI = b'{"success":true,"errorCode":null,"errorMessage":null,"value":null}'
_SHOPEE = "/shpe/"


class Counts(msgspec.Struct):
    calls: int = 0
    listings: int = 0


class Market:
    def __init__(self, wait_seconds: float, *, receipts: bool):
        self.wait_seconds = wait_seconds
        self.counts = Counts()
        self._receipts: list[tuple[float, int]] | None = [] if receipts else None

    def answer(self, target: bytes, body: bytes) -> tuple[bytes, float]:
        """The body of an answer, and how long it is to wait."""
        if target == b"/counts":
            return msgspec.json.encode(self.counts), 0.0
        if target == b"/receipts":
            return self._take_receipts(), 0.0
        quantities = _QUANTITY.findall(body)
        self.counts.calls += 1
        self.counts.listings += len(quantities)
        if self._receipts is not None:
            at = time()
            self._receipts += ((at, int(quantity)) for quantity in quantities)
        return (_shopee(body) if target.startswith(_SHOPEE.encode()) else _BLIBLI), self.wait_seconds

    def _take_receipts(self) -> bytes:
        taken, self._receipts = self._receipts or [], []
        return msgspec.json.encode(taken)


class _SellerStock(msgspec.Struct):
    stock: int


class _ModelStock(msgspec.Struct):
    model_id: int
    seller_stock: list[_SellerStock]


class _UpdateStock(msgspec.Struct):
    stock_list: list[_ModelStock]


_update_stock = msgspec.json.Decoder(_UpdateStock)


def _shopee(body: bytes) -> bytes:
    taken = [
        {"model_id": one.model_id, "location_id": "", "stock": one.seller_stock[0].stock}
        for one in _update_stock.decode(body).stock_list
    ]
    return msgspec.json.encode({"error": "", "message": "", "response": {"success_list": taken, "failure_list": []}})


class Connection(asyncio.Protocol):
    def __init__(self, answer: Callable[[bytes, bytes], tuple[bytes, float]]):
        self._answer = answer
        self._came = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        came = self._came + data if self._came else data
        end = came.find(b"\r\n\r\n")
        length = _LENGTH.search(came, 0, max(end, 0) + 2)
        wanted = end + 4 + (int(length[1]) if length else 0)
        if end < 0 or len(came) < wanted:
            self._came = came
            return
        self._came = came[wanted:]
        body, wait_seconds = self._answer(came.split(b" ", 2)[1], came[end + 4 : wanted])
        whole = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        if wait_seconds:
            asyncio.get_running_loop().call_later(wait_seconds, self._write, whole)
        else:
            self._write(whole)

    def _write(self, whole: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(whole)


async def _serve(port: int, market: Market) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(market.answer), HOST, port)
    async with server:
        await server.serve_forever()


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--port", type=int, required=True)
    made.add_argument("--wait-ms", type=float, default=0.0)
    made.add_argument("--receipts", action="store_true")
    asked = made.parse_args()
    child.run(_serve(asked.port, Market(asked.wait_ms / 1000, receipts=asked.receipts)))


if __name__ == "__main__":
    main()
