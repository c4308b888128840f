from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lumbung.dispatch.together import Together


class Answerer:
    """Answers with ten times the number, when it is let."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.begun = asyncio.Semaphore(0)
        self.may_end = asyncio.Semaphore(0)
        self.fails = False

    async def answer(self, numbers: Sequence[int]) -> list[int]:
        self.asked.append(list(numbers))
        self.begun.release()
        await self.may_end.acquire()
        if self.fails:
            raise ValueError("it is away")
        return [10 * number for number in numbers]


async def asking(together: Together[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    """Each has asked when this returns."""
    tasks = [asyncio.create_task(together.ask(number)) for number in numbers]
    await asyncio.sleep(0)
    return tasks


async def test_one_that_is_alone_is_asked_at_once_and_those_that_come_meanwhile_together() -> None:
    answerer = Answerer()
    together = Together(answerer.answer, most=10)
    first = await asking(together, 1)
    await answerer.begun.acquire()
    others = await asking(together, 2, 3, 4)
    for _ in range(2):
        answerer.may_end.release()
    assert await asyncio.gather(*first, *others) == [10, 20, 30, 40]
    assert answerer.asked == [[1], [2, 3, 4]]
    answerer.may_end.release()
    assert await together.ask(5) == 50


async def test_no_more_are_asked_at_once_than_may_be() -> None:
    answerer = Answerer()
    together = Together(answerer.answer, most=2)
    tasks = await asking(together, 1, 2, 3, 4, 5)
    for _ in range(3):
        answerer.may_end.release()
    assert await asyncio.gather(*tasks) == [10, 20, 30, 40, 50]
    assert answerer.asked == [[1, 2], [3, 4], [5]]


async def test_what_went_wrong_all_of_a_question_hear_and_the_next_is_asked() -> None:
    answerer = Answerer()
    together = Together(answerer.answer, most=2)
    tasks = await asking(together, 1, 2, 3)
    await answerer.begun.acquire()
    answerer.fails = True
    answerer.may_end.release()
    await answerer.begun.acquire()
    answerer.fails = False
    answerer.may_end.release()
    heard = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(answer) for answer in heard] == ["it is away", "it is away", "30"]


async def test_who_has_gone_is_not_asked_for() -> None:
    answerer = Answerer()
    together = Together(answerer.answer, most=10)
    first = await asking(together, 1)
    await answerer.begun.acquire()
    gone, stays = await asking(together, 2, 3)
    gone.cancel()
    await asyncio.wait([gone])
    for _ in range(2):
        answerer.may_end.release()
    assert await asyncio.gather(*first, stays) == [10, 30]
    assert answerer.asked == [[1], [3]]


async def test_nobody_waits_for_ever_when_the_asking_is_ended() -> None:
    answerer = Answerer()
    together = Together(answerer.answer, most=1)
    tasks = await asking(together, 1, 2)
    await answerer.begun.acquire()
    assert together._asking is not None
    together._asking.cancel()
    heard = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in heard] == [asyncio.CancelledError] * 2


@pytest.mark.parametrize("fails", [False, True])
async def test_an_answer_for_who_has_gone_meanwhile_is_dropped(fails: bool) -> None:
    answerer = Answerer()
    together = Together(answerer.answer, most=10)
    gone, stays = await asking(together, 1, 2)
    await answerer.begun.acquire()
    gone.cancel()
    await asyncio.wait([gone])
    answerer.fails = fails
    answerer.may_end.release()
    [heard] = await asyncio.gather(stays, return_exceptions=True)
    assert str(heard) == ("it is away" if fails else "20")
