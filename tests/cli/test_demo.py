"""What the demonstration does when things go wrong. That it goes right: test_processes.py."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from lumbung.cli import demo
from lumbung.cli.demo import Demonstration, send_traffic
from lumbung.client import PartnerClient
from lumbung.errors import LumbungError
from lumbung.settings import Settings

BREAK = 0  # instead of a status: the connection ends without an answer


@contextmanager
def hub(*statuses: int) -> Iterator[tuple[str, threading.Event]]:
    """A hub that answers with these, then takes everything; the event: it took something after them."""
    left = list(statuses)
    taken = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status = left.pop(0) if left else 200
            if not left and status == 200:
                taken.set()
            if status == BREAK:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"no")

        def log_message(self, format: str, *args: object) -> None:
            """Not on the tests' stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def told_by_traffic(*statuses: int) -> list[str]:
    """The lines on the console until the hub takes updates again."""
    console = Console(file=io.StringIO(), width=200)
    with hub(*statuses) as (url, taken):
        client = PartnerClient(url, "p", "s", timeout_seconds=10)
        sending = asyncio.create_task(send_traffic(client, ["default"], console, pause_seconds=0))
        assert await asyncio.to_thread(taken.wait, 30)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        client.close()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


async def test_traffic_goes_on_after_answers_that_refuse_and_tells_an_outage_once() -> None:
    assert await told_by_traffic(503, 503, 503) == ["Traffic: 503 no; trying again until it is taken"]


async def test_traffic_connects_again_after_its_connection_was_lost() -> None:
    [line] = await told_by_traffic(200, BREAK, BREAK)
    assert line.startswith("Traffic: no answer (")


async def test_every_outage_is_told() -> None:
    assert len(await told_by_traffic(503, 200, 503, 503)) == 2


async def test_a_hub_that_does_not_listen_is_told_and_ends_nothing() -> None:
    with hub() as (url, _):
        pass
    console = Console(file=io.StringIO(), width=200)
    asked = [0]

    class Counting(PartnerClient):
        def update_stocks(self, *arguments: object, **more: object) -> object:  # type: ignore[override]
            asked[0] += 1
            if asked[0] == 4:
                raise RuntimeError("enough")
            return super().update_stocks(*arguments, **more)  # type: ignore[arg-type]

    with pytest.raises(RuntimeError, match="enough"):
        await send_traffic(Counting(url, "p", "s"), ["default"], console, pause_seconds=0)
    assert isinstance(console.file, io.StringIO)
    assert len(console.file.getvalue().splitlines()) == 1


async def test_a_demonstration_whose_processes_end_by_themselves_fails(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ending:
        async def run(self, *_: object, **__: object) -> None:
            """As if nothing had been there to run."""

    monkeypatch.setattr(demo, "Supervisor", Ending)
    settings = Settings(data_dir=tmp_path, port=1)
    shown = Demonstration(settings, 1, Console(file=io.StringIO()), once=False, info=None, traffic=False)
    with pytest.raises(LumbungError, match="have ended by themselves"):
        await shown.run(database_url, asyncio.Event())
