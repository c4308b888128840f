"""The memory that large bodies may take: counted from their first byte until nobody needs them any more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lumbung.api.bodies import SMALL_BYTES, Bodies
from lumbung.errors import TooLarge, Unavailable
from lumbung.settings import Settings

CHUNK = b"x" * SMALL_BYTES


def request(*chunks: bytes, breaks: BaseException | None = None) -> Any:
    left = list(chunks)

    async def receive() -> dict[str, object]:
        if not left and breaks is not None:
            raise breaks
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or breaks is not None}

    return cast(Any, SimpleNamespace(headers={}, receive=receive))


@pytest.fixture
def bodies() -> Bodies:
    """Room for two bodies of two chunks."""
    return Bodies(Settings(body_bytes_max=3 * SMALL_BYTES, bodies_bytes_max=4 * SMALL_BYTES))


async def test_a_large_body_is_counted_until_the_block_ends(bodies: Bodies) -> None:
    async with bodies.reading(request(CHUNK, CHUNK)) as first, bodies.reading(request(CHUNK, CHUNK)) as second:
        assert len(first) == len(second) == 2 * SMALL_BYTES
        with pytest.raises(Unavailable, match="Too many large bodies"):
            async with bodies.reading(request(CHUNK, CHUNK)):
                pass
    async with bodies.reading(request(CHUNK, CHUNK)) as third:
        assert len(third) == 2 * SMALL_BYTES


async def test_a_small_body_is_let_in_whatever_large_ones_take_up(bodies: Bodies) -> None:
    async with (
        bodies.reading(request(CHUNK, CHUNK)),
        bodies.reading(request(CHUNK, CHUNK)),
        bodies.reading(request(CHUNK)) as small,
    ):
        assert small == CHUNK


@pytest.mark.parametrize("breaks", [ConnectionResetError(), TimeoutError()], ids=repr)
async def test_a_body_that_breaks_off_takes_up_nothing_afterwards(bodies: Bodies, breaks: Exception) -> None:
    for _ in range(5):
        with pytest.raises(Exception):  # noqa: B017, PT011 (what it becomes is others' to test)
            async with bodies.reading(request(CHUNK, CHUNK, breaks=breaks)):
                pass
    async with bodies.reading(request(CHUNK, CHUNK)), bodies.reading(request(CHUNK, CHUNK)):
        pass


async def test_a_body_that_is_too_long_is_refused_while_it_is_read_and_takes_up_nothing(bodies: Bodies) -> None:
    for _ in range(5):
        with pytest.raises(TooLarge):
            async with bodies.reading(request(*[CHUNK] * 4)):
                pass
    async with bodies.reading(request(CHUNK, CHUNK)), bodies.reading(request(CHUNK, CHUNK)):
        pass
