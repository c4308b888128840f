"""Questions that are asked while others are being answered go together with the next ones: alone each is asked at once,
and under load one statement answers many.

    ask --> waiting --> the next question of all who wait --> each gets its part
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Together(Generic[Question, Answer]):
    """`answer` gives an answer for each of several questions, in their order; what it raises, all of them get. At most
    `most` are asked at once."""

    def __init__(self, answer: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]], *, most: int):
        self._answer = answer
        self._most = most
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answered))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all())
        return await answered

    async def _ask_all(self) -> None:
        try:
            while self._waiting:
                asked, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                # Who has gone meanwhile needs no answer.
                await self._ask([(question, answered) for question, answered in asked if not answered.done()])
        finally:
            self._asking = None
            for _, answered in self._waiting:  # cancelled: the loop ends
                answered.cancel()
            self._waiting = []

    async def _ask(self, asked: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        if not asked:
            return
        try:
            answers = await self._answer([question for question, _ in asked])
        except asyncio.CancelledError:
            for _, answered in asked:
                answered.cancel()
            raise
        except Exception as error:  # noqa: BLE001
            for _, answered in asked:
                if not answered.done():
                    answered.set_exception(error)
            return
        for (_, answered), answer in zip(asked, answers, strict=True):
            if not answered.done():
                answered.set_result(answer)
