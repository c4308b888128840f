"""Starting, stopping, gates and the write log."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest

from lumbung.sandbox.errors import RefusedError, StartError, UnknownError
from lumbung.sandbox.server import Sandbox

from .conftest import Controller
from .seller import HEADERS, QUERY, STORE, Seller

COMMAND = (sys.executable, "-m", "lumbung", "sandbox", "--port")


async def test_every_write_is_in_the_file_at_once_and_stays_after_a_reset(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    path = tmp_path / "writes.jsonl"
    async with Sandbox.start(write_log=path) as sandbox:
        sandbox.put_store("blib", "TOQ-1", STORE)
        seller = Seller(session, sandbox.url)
        await seller.set(5)
        await seller.set(6)
        _, writes = await Controller(session, sandbox.url)("GET", "/writes")
        assert [json.loads(line) for line in path.read_text().splitlines()] == writes
        await sandbox.reset(keep_stores=True)
        await seller.set(7)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [(line["n"], line["quantity"]) for line in lines] == [(1, 5), (2, 6), (1, 7)]


async def test_the_file_keeps_what_memory_forgets(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    path = tmp_path / "writes.jsonl"
    async with Sandbox.start(write_log=path, kept_max=3) as sandbox:
        sandbox.put_store("blib", "TOQ-1", STORE)
        for quantity in range(5):
            await Seller(session, sandbox.url).set(quantity)
        assert [write.n for write in sandbox.ledger.writes.after(0)] == [3, 4, 5]
        assert [write.n for write in sandbox.ledger.writes.after(3)] == [4, 5]
        assert [write.n for write in sandbox.ledger.writes.after(0, 1)] == [3]
        assert sandbox.ledger.writes.oldest_kept == 3
    assert len(path.read_text().splitlines()) == 5


async def test_every_ended_call_is_in_the_file_at_once_without_its_texts(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    path = tmp_path / "calls.jsonl"
    async with Sandbox.start(call_log=path, kept_max=1) as sandbox:
        sandbox.put_store("blib", "TOQ-1", STORE)
        seller = Seller(session, sandbox.url)
        await seller.set(5)
        sandbox.faults.set("blib", error_rate=1)
        await seller.set(6)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        _, [last] = await Controller(session, sandbox.url)("GET", "/calls")
        assert {**lines[1], **{name: last[name] for name in ("headers", "request_body", "response_body")}} == last
        assert [(line.pop("n"), line.pop("status"), line.pop("fault")) for line in lines] == [
            (1, 200, ""),
            (2, 500, "error_rate"),
        ]
        await sandbox.reset(keep_stores=True)
        await seller.set(7)
        numbers = [json.loads(line)["n"] for line in path.read_text().splitlines()]
    assert lines[0].keys() == {
        "at",
        "channel",
        "store",
        "caller",
        "received",
        "remote_variants",
        "method",
        "path",
        "duration_ms",
    }
    assert numbers == [1, 2, 1]


async def test_a_call_has_no_line_before_it_has_ended(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    path = tmp_path / "calls.jsonl"
    async with Sandbox.start(call_log=path) as sandbox:
        sandbox.put_store("blib", "TOQ-1", STORE)
        async with sandbox.gate("blib") as gate:
            call = asyncio.create_task(Seller(session, sandbox.url).set(5))
            await gate.entered(1)
            assert path.read_text() == ""
        await call
        assert len(path.read_text().splitlines()) == 1


async def test_a_log_file_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "log.jsonl"
    with pytest.raises(StartError, match="cannot open the write log "):
        async with Sandbox.start(write_log=path):
            pass
    with pytest.raises(StartError, match="cannot open the call log "):
        async with Sandbox.start(write_log=tmp_path / "writes.jsonl", call_log=path):
            pass


async def test_a_gate_holds_calls_that_were_received(sandbox: Sandbox, seller: Seller) -> None:
    async with sandbox.gate("blib") as gate:
        call = asyncio.create_task(seller.set(5))
        await gate.entered(1)
        assert sandbox.ledger.writes.last == 0
        assert sandbox.traffic.in_flight == 1
        gate.open()
        assert (await call)[0] == 200
    assert sandbox.ledger.writes.last == 1


async def test_leaving_the_gates_block_opens_it(sandbox: Sandbox, seller: Seller) -> None:
    async with sandbox.gate("blib") as gate:
        call = asyncio.create_task(seller.set(5))
        await gate.entered()
    assert (await call)[0] == 200
    assert (await seller.set(6))[0] == 200


async def test_a_gate_can_keep_a_call_while_later_ones_pass(sandbox: Sandbox, seller: Seller) -> None:
    async with sandbox.gate("blib") as gate:
        call = asyncio.create_task(seller.set(5))
        await gate.entered()
        gate.let_later_pass()
        assert (await seller.set(6))[0] == 200
        assert [write.quantity for write in sandbox.ledger.writes.after(0)] == [6]
        gate.open()
        assert (await call)[0] == 200
    assert [write.quantity for write in sandbox.ledger.writes.after(0)] == [6, 5]


async def test_a_channel_has_one_gate_at_a_time(sandbox: Sandbox) -> None:
    async with sandbox.gate("blib"):
        with pytest.raises(RefusedError, match="has a gate already"):
            async with sandbox.gate("blib"):
                pass
    with pytest.raises(UnknownError, match="no channel 'nope'"):
        async with sandbox.gate("nope"):
            pass


async def test_a_client_that_gives_up_and_calls_again_is_not_seen_twice(sandbox: Sandbox) -> None:
    sandbox.faults.set("blib", timeout_rate=1)
    port = int(sandbox.url.rpartition(":")[2])
    request = (
        f"PUT /blib/v2/proxy/seller/v1/products/TOQ-1-1-1/stock?{urlencode(QUERY)}&blibli-sku=TOQ-1-1-1 HTTP/1.1\r\n"
        f"Authorization: {HEADERS['Authorization']}\r\nApi-Seller-Key: seller-key\r\n"
        'Host: x\r\nContent-Length: 21\r\n\r\n{"availableStock":17}'
    ).encode()
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
    for n, (_, writer) in enumerate(streams, start=1):
        writer.write(request)
        await sandbox.ledger.wait_for_writes(n)
        writer.transport.abort()  # and the next call goes out in the same breath
    await sandbox.ledger.wait_for_calls(20)
    assert [call.status for call in sandbox.ledger.calls.after(0)] == [0] * 20
    assert sandbox.traffic.max_in_flight_per_listing == 1
    assert sandbox.traffic.in_flight == 0


async def test_stopping_lets_go_of_everything_that_waits(session: aiohttp.ClientSession) -> None:
    async with Sandbox.start() as sandbox:
        sandbox.put_store("blib", "TOQ-1", STORE)
        seller = Seller(session, sandbox.url)
        sandbox.faults.set("blib", timeout_rate=1, late_apply_ms=3_600_000, times=1)
        held = asyncio.create_task(seller.set(1))
        poll = asyncio.create_task(Controller(session, sandbox.url)("GET", "/writes?wait_ms=60000"))
        gate_block = sandbox.gate("blib")
        async with asyncio.timeout(10):
            while (await Controller(session, sandbox.url)("GET", "/status"))[1]["late_writes_pending"] == 0:
                pass
        gate = await gate_block.__aenter__()
        gated = asyncio.create_task(seller.set(2))
        await gate.entered(1)
        stopping_at = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - stopping_at < 1.5
    results = await asyncio.gather(held, gated, poll, return_exceptions=True)
    disconnected = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
    assert isinstance(results[0], disconnected)
    assert isinstance(results[1], disconnected)
    assert results[2] == (200, [])
    assert sandbox.ledger.writes.last == 0
    await gate_block.__aexit__(None, None, None)


async def test_a_port_in_use_is_one_clear_error(sandbox: Sandbox) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    with pytest.raises(StartError, match=rf"cannot listen on 127\.0\.0\.1:{port} .*choose another port"):
        async with Sandbox.start(port=port):
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_in_peace(tmp_path: Path, number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("0", "--write-log", str(tmp_path / "w"), "--call-log", str(tmp_path / "c")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    said = (await process.stderr.readline()).decode().strip()
    url = said.removeprefix("Sandbox on ").partition(";")[0]
    assert url.startswith("http://127.0.0.1:")
    addresses = [(await process.stderr.readline()).decode().split() for _ in range(4)]
    assert addresses == [
        ["bklp", "base_url", f"{url}/bklp/api"],
        ["bklp", "accounts_url", f"{url}/bklp/accounts"],
        ["blib", "base_url", f"{url}/blib/v2"],
        ["shpe", "base_url", f"{url}/shpe"],
    ]
    async with aiohttp.ClientSession() as session, session.get(f"{url}/shpe/x") as answer:
        assert answer.status == 404
    process.send_signal(number)
    printed, errors = await process.communicate()
    assert (process.returncode, printed, errors) == (0, b"", b"")
    assert (tmp_path / "w").read_text() == ""
    [line] = (tmp_path / "c").read_text().splitlines()
    assert (json.loads(line)["path"], json.loads(line)["status"]) == ("/shpe/x", 404)


async def test_a_process_that_cannot_start_says_so_in_one_line(sandbox: Sandbox) -> None:
    port = sandbox.url.rpartition(":")[2]
    process = await asyncio.create_subprocess_exec(*COMMAND, port, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 78
    assert errors.decode().startswith(f"lumbung: cannot listen on 127.0.0.1:{port} (")
    assert len(errors.splitlines()) == 1
