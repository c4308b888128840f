"""Bodies on their way in: up to a length, in time, and in no more memory than a limit, however many arrive at once."""

from __future__ import annotations

import asyncio

from lumbung.api.errors import AnyRequest
from lumbung.errors import BadRequest, TooLarge, Unavailable
from lumbung.settings import Settings

SMALL_BYTES = 65_536  # any update of the contract is shorter: those are let in whatever large ones take up


class Bodies:
    """One object a process. What large bodies hold is counted, from their first byte until nobody needs them any more.

    `async with bodies.reading(request) as body` is the way to one: it stands for as long as the block runs.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._held = 0

    def reading(self, request: AnyRequest) -> Reading:
        """Entering it raises TooLarge before a body that says it is too long is read, and while one that does not say
        is; BadRequest for one that ends too early or comes too slowly; Unavailable when too many are on their way."""
        return Reading(self, request, self._settings)

    def take(self, count: int) -> None:
        """Count so many bytes more; raises Unavailable."""
        if self._held + count > self._settings.bodies_bytes_max:
            raise Unavailable("Too many large bodies are on their way; send this one again", retry_after_seconds=1)
        self._held += count

    def give_back(self, count: int) -> None:
        self._held -= count


class Reading:
    """One body, from its first byte to the end of the block."""

    def __init__(self, bodies: Bodies, request: AnyRequest, settings: Settings):
        self._bodies = bodies
        self._request = request
        self._settings = settings
        self._counted = 0

    async def __aenter__(self) -> bytes:
        length = self._request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._settings.body_bytes_max:
            raise self._too_large()
        seconds = self._settings.body_read_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._gathered()
        except TimeoutError:
            self._let_go()
            raise BadRequest(f"The body did not arrive within {seconds:g} seconds") from None
        except BaseException:
            self._let_go()
            raise

    async def __aexit__(self, *error: object) -> None:
        self._let_go()

    async def _gathered(self) -> bytes:
        """As the server hands it over: the framework's own reader costs more than all else that is done with a body."""
        chunks: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await self._request.receive()
            if message["type"] != "http.request":
                raise BadRequest("The body ended before it was complete, or its chunks are malformed")
            chunk, more = message["body"], message["more_body"]
            size += len(chunk)
            if size > self._settings.body_bytes_max:
                raise self._too_large()
            if size > SMALL_BYTES:
                self._bodies.take(size - self._counted)
                self._counted = size
            chunks.append(chunk)
        return b"".join(chunks)

    def _let_go(self) -> None:
        self._bodies.give_back(self._counted)
        self._counted = 0

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body must not be longer than {self._settings.body_bytes_max} bytes")
