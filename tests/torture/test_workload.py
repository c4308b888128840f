"""Merchants at work, against a partner API that answers as it likes."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from uuid import NAMESPACE_URL, uuid5

from lumbung.torture.journal import Journal
from lumbung.torture.quantities import quantity_of
from lumbung.torture.workload import Pace, Workload
from lumbung.torture.world import WAREHOUSES, shape_of
from tests.torture.scene import WORLD

Asked = tuple[str, str, str, int]


class Api:
    """`refusals`: how it answers before it takes anything; 0 closes the connection."""

    def __init__(self, *refusals: int) -> None:
        self.asked: list[Asked] = []
        self.refusals = list(refusals)
        self.enough = threading.Event()
        self.enough_at = 40
        self._lock = threading.Lock()

    def answer(self, key: str, body: dict[str, object]) -> int:
        with self._lock:
            self.asked.append((key, str(body["sku"]), str(body["warehouse"]), int(str(body["available_stock"]))))
            if len(self.asked) >= self.enough_at:
                self.enough.set()
            return self.refusals.pop(0) if self.refusals else 200


@contextmanager
def serving(api: Api) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            key = self.headers["Idempotency-Key"]
            status = api.answer(key, body)
            if not status:
                self.close_connection = True
                return
            answer = json.dumps({"transaction_code": str(uuid5(NAMESPACE_URL, key))}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def worked(api: Api) -> Journal:
    journal = Journal()
    with serving(api) as url:
        workload = Workload(WORLD, [url], journal, Pace(4, 0), seed=1)
        workload.start()
        assert api.enough.wait(60)
        assert workload.finish(60)
    return journal


def test_each_key_is_sent_in_order_one_after_the_other_and_says_its_number() -> None:
    api = Api()
    journal = worked(api)
    for key in {one.key for one in journal.acknowledged}:
        of_key = [one for one in journal.acknowledged if one.key == key]
        assert [one.n for one in of_key] == list(range(1, len(of_key) + 1))
        assert all(later.sent_at >= earlier.acknowledged_at for earlier, later in pairwise(of_key))
    sent = {(f"{sku}-{warehouse}-{n}", sku, warehouse, quantity_of(n, shape_of(sku), WAREHOUSES.index(warehouse)))
            for (_, sku, warehouse), n in ((one.key, one.n) for one in journal.acknowledged)}  # fmt: skip
    assert set(api.asked) == sent
    assert journal.refused == []


def test_what_is_not_answered_or_asked_for_again_is_sent_again_with_its_key() -> None:
    api = Api(503, 0, 429)
    journal = worked(api)
    assert sum(one.tries - 1 for one in journal.acknowledged) == 3
    assert len({one.code for one in journal.acknowledged}) == len(journal.acknowledged)
    assert max(Counter(key for key, *_ in api.asked).values()) > 1
    assert journal.refused == []


def test_a_good_update_that_is_refused_is_told() -> None:
    journal = worked(Api(400))
    assert len(journal.refused) == 1
    assert journal.refused[0].startswith("400 ")


def test_some_are_sent_again_though_they_were_acknowledged() -> None:
    api = Api()
    api.enough_at = 400
    journal = worked(api)
    again = [one for one in journal.acknowledged if one.again is not None]
    assert again
    assert all(one.again == one.code for one in again)


def test_both_warehouses_of_a_sku_are_with_different_writers() -> None:
    workload = Workload(WORLD, ["http://127.0.0.1:9"], Journal(), Pace(4, 0), seed=1)
    owners = {key: number for number, writer in enumerate(workload._writers) for _, key in writer._keys}
    assert len(owners) == 6
    assert all(
        owners["Toko 1", sku, "default"] != owners["Toko 1", sku, "surabaya"] for sku in ("sku1", "sku2", "sku3")
    )


def test_who_is_told_to_finish_and_gets_no_answer_gives_up() -> None:
    journal = Journal()
    workload = Workload(WORLD, ["http://127.0.0.1:9"], journal, Pace(2, 0), seed=1)
    workload.start()
    assert not workload.finish(0.0)
    assert journal.acknowledged == []
