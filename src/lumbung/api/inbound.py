"""A signed request as it came over the wire: its target exactly as it was sent."""

from __future__ import annotations

from lumbung.api.errors import AnyRequest
from lumbung.api.partners import SignedRequest


def signed_request(request: AnyRequest, body: bytes, public_path_prefix: str) -> SignedRequest:
    """Of a header that is there twice the first counts."""
    return SignedRequest(
        target=target_of(request, public_path_prefix),
        body=body,
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
