"""Every error as the contract's envelope. What is not ours is a bug: a 500 that shows nothing of the inside."""

from __future__ import annotations

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from lumbung.api.reference import note_refusal, reference_of
from lumbung.api.wire import error_answer
from lumbung.errors import BadRequest, LumbungError, NotFound, TooLarge, Unavailable

log = structlog.get_logger()

RETRY_AFTER_SECONDS = 2  # where an error does not say

AnyRequest = Request[object, object, dict[str, object]]  # type: ignore[type-var]


def answer_error(request: AnyRequest, error: Exception) -> Response[bytes]:
    """The answer to a request that raised."""
    reference = reference_of(request.scope)
    known = _known(error)
    if isinstance(known, Unavailable):
        note_refusal(request.scope, str(known))
    elif known.status >= 500:
        log.error("request failed", reference=reference, error=str(error), exc_info=_unexpected(error))
    headers = _retry_after(known)
    if isinstance(error, HTTPException):
        headers.update({name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"})
    status = error.status_code if isinstance(error, HTTPException) and known.status == 400 else known.status
    return Response(
        msgspec.json.encode(error_answer(known, reference)),
        status_code=status,
        media_type="application/json",
        headers=headers,
    )


def _retry_after(error: LumbungError) -> dict[str, str]:
    if error.retry_after_seconds is None and not isinstance(error, Unavailable):
        return {}
    return {"retry-after": str(error.retry_after_seconds or RETRY_AFTER_SECONDS)}


def _known(error: Exception) -> LumbungError:
    match error:
        case LumbungError(status=500):
            return LumbungError("An internal error")
        case LumbungError():
            return error
        case HTTPException(status_code=404):
            return NotFound("There is no such path")
        case HTTPException(status_code=405):
            return BadRequest("This path does not take this method")
        case HTTPException(status_code=413):
            return TooLarge("The body is too large")
        case HTTPException(status_code=status) if status < 500:
            return BadRequest("The request cannot be read")
        case _:
            return LumbungError("An internal error")


def _unexpected(error: Exception) -> Exception | None:
    return None if isinstance(error, LumbungError) else error
