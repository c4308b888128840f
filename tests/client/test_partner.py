"""The client signs as the contract says, and can be used again after the network failed."""

from __future__ import annotations

import http.client
import json
import socket
import threading

import pytest

from lumbung.client import PartnerClient, sign
from tests.world import PARTNER_ID, PARTNER_SECRET


def test_the_published_vector_is_signed_as_published() -> None:
    target = "/v1/partner/order?since=2018-10-13T13:34:52Z&until=2018-10-16T19:22:39Z&limit=100&offset=0"
    assert sign(PARTNER_SECRET, target, b"") == "XoPRRDtfNWaGm4nbw7A0LY/c2U0+jg3F3Ay2d3VR3bM="


def test_after_a_connection_that_broke_the_next_request_goes_through() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answers = [b"", b"HTTP/1.1 200 OK\r\nx-request-id: r-1\r\ncontent-length: 2\r\n\r\n{}"]

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        client = PartnerClient(f"http://127.0.0.1:{server.getsockname()[1]}", PARTNER_ID, PARTNER_SECRET)
        with pytest.raises((OSError, http.client.HTTPException)):
            client.history()
        answer = client.history(limit=1)
        thread.join()
    client.close()
    assert (answer.status, answer.json, answer.reference) == (200, {}, "r-1")


def test_what_is_signed_is_what_is_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        seen: list[bytes] = []

        def serve() -> None:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as lines:
                head = b"".join(iter(lines.readline, b"\r\n"))
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                seen.extend([head, lines.read(length)])
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

        thread = threading.Thread(target=serve)
        thread.start()
        client = PartnerClient(f"http://127.0.0.1:{server.getsockname()[1]}/hub", PARTNER_ID, PARTNER_SECRET)
        client.update_stocks({"sku": "padi"}, idempotency_key="k-1")
        thread.join()
    client.close()
    head, body = seen
    target = "/hub/v1/partner/inventory/updatestocks"
    assert head.startswith(f"POST {target} HTTP/1.1\r\n".encode())
    assert f"secret: {sign(PARTNER_SECRET, target, body)}\r\n".encode() in head
    assert b"Idempotency-Key: k-1\r\n" in head
    assert json.loads(body) == {"sku": "padi"}
