"""Reading a signed request from the wire: its body up to the limit and in time, its target exactly as it was sent."""

from __future__ import annotations

import asyncio

from litestar.exceptions import InternalServerException

from lumbung.api.errors import AnyRequest
from lumbung.api.partners import SignedRequest
from lumbung.errors import BadRequest, TooLarge
from lumbung.settings import Settings


async def read_signed(request: AnyRequest, settings: Settings) -> SignedRequest:
    """Raises TooLarge before a body that says it is too long is read, and while one that does not say is."""
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > settings.body_bytes_max:
        raise _too_large(settings)
    return SignedRequest(
        target=target_of(request, settings.public_path_prefix),
        body=await _body(request, settings),
        partner_id=request.headers.get("partner-id"),
        secret=request.headers.get("secret"),
        timestamp=request.headers.get("timestamp"),
    )


def target_of(request: AnyRequest, prefix: str) -> bytes:
    """Path and query as they stood on the wire, with the prefix that a proxy took away put back."""
    path = request.scope["raw_path"]
    query = request.scope["query_string"]
    stripped = f"/{prefix.strip('/')}" if prefix.strip("/") else ""
    return stripped.encode() + path + (b"?" + query if query else b"")


async def _body(request: AnyRequest, settings: Settings) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(settings.body_read_timeout_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > settings.body_bytes_max:
                    raise _too_large(settings)
                chunks.append(chunk)
    except TimeoutError:
        raise BadRequest(f"The body did not arrive within {settings.body_read_timeout_seconds:g} seconds") from None
    except InternalServerException:
        raise BadRequest("The client went away before its body was complete") from None
    return b"".join(chunks)


def _too_large(settings: Settings) -> TooLarge:
    return TooLarge(f"The body must not be longer than {settings.body_bytes_max} bytes")
