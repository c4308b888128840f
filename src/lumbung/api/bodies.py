"""Bodies on their way in: up to a length, in time, and in no more memory than a limit, however many arrive at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from litestar.exceptions import InternalServerException

from lumbung.api.errors import AnyRequest
from lumbung.errors import BadRequest, TooLarge, Unavailable
from lumbung.settings import Settings

SMALL_BYTES = 65_536  # any update of the contract is shorter: those are let in whatever large ones take up


class Bodies:
    """One object a process. What the large bodies hold that have not arrived as a whole is counted."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._held = 0

    async def read(self, request: AnyRequest) -> bytes:
        """Raises TooLarge before a body that says it is too long is read, and while one that does not say is;
        BadRequest for one that ends too early or comes too slowly; Unavailable when too many are on their way."""
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._settings.body_bytes_max:
            raise self._too_large()
        seconds = self._settings.body_read_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._gathered(request.stream())
        except TimeoutError:
            raise BadRequest(f"The body did not arrive within {seconds:g} seconds") from None
        except InternalServerException:
            raise BadRequest("The body ended before it was complete, or its chunks are malformed") from None

    async def _gathered(self, stream: AsyncIterator[bytes]) -> bytes:
        chunks: list[bytes] = []
        size = counted = 0
        try:
            async for chunk in stream:
                size += len(chunk)
                if size > self._settings.body_bytes_max:
                    raise self._too_large()
                if size > SMALL_BYTES:
                    self._count(size - counted)
                    counted = size
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            self._held -= counted

    def _count(self, more: int) -> None:
        if self._held + more > self._settings.bodies_bytes_max:
            raise Unavailable("Too many large bodies are on their way; send this one again", retry_after_seconds=1)
        self._held += more

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body must not be longer than {self._settings.body_bytes_max} bytes")
