"""Baseline E: the same server and framework, reading a request, checking its signature and answering its body.

`python -m lumbung.bench.echo --port 9000 --key SECRET`. No database, no validation, no history: what is left of an
update when everything that Lumbung is for is taken away.
"""

from __future__ import annotations

import argparse
import base64
import hmac
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from litestar import Litestar, Request, Response, get, post

from lumbung import garbage
from lumbung.bench import child
from lumbung.bench.requests import UPDATES

HOST = "127.0.0.1"
BACKLOG = 1024


def echoing(key: bytes) -> Litestar:
    @post(UPDATES, status_code=200)
    async def echo(request: Request[Any, Any, Any]) -> Response[bytes]:
        body = b""
        more = True
        while more:  # as the hub reads them
            received = await request.receive()
            assert received["type"] == "http.request"
            body, more = body + received["body"], received["more_body"]
        message = request.scope["raw_path"] + body
        right = base64.b64encode(hmac.digest(key, message, "sha256"))
        if not hmac.compare_digest(right, request.headers.get("secret", "").encode()):
            return Response(b"{}", status_code=401, media_type="application/json")
        return Response(body, media_type="application/json")

    @get("/readyz", sync_to_thread=False)
    def readyz() -> None:
        return None

    return Litestar([echo, readyz], logging_config=None, openapi_config=None)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--port", type=int, required=True)
    made.add_argument("--key", required=True)
    asked = made.parse_args()
    server = Server(
        echoing(asked.key.encode()),
        address=HOST,
        port=asked.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        backlog=BACKLOG,
        websockets=False,
        log_enabled=False,
    )
    garbage.collect_seldom()  # as the hub's processes do
    child.run(server.serve())


if __name__ == "__main__":
    main()
