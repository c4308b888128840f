"""One store's account at the marketplace of the tests: what it shows, what it was told, and what it will answer.

Tests script it between calls: everything runs in one event loop, so nothing here is locked.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from lumbung.channels.base import Accepted, Conflict, Floor, Observed, Outcome, Rejected, Scope, Submitted
from lumbung.sandbox.gate import Gate
from lumbung.sandbox.tally import Tally

from .market_tokens import Pair, TokenBook

DEADLINE_SECONDS = 60.0

Route = Literal["/push", "/jobs", "/read", "/token", "/ping"]
JsonRow = dict[str, object]


class Item(msgspec.Struct, frozen=True):
    """One listing of a push, as it came."""

    id: str
    quantity: int
    expected: int | None = None
    locations: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Write:
    """A quantity that took effect. `at` is monotonic."""

    id: str
    quantity: int
    at: float


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has ended. `items`: of a push. `status` 0: it was reset. `at`, when it came, is monotonic."""

    route: Route
    ids: tuple[str, ...]
    items: tuple[Item, ...]
    status: int
    at: float


@dataclass(frozen=True, slots=True)
class Job:
    """An answer to a push: taken, and done only when somebody asks, after asking `pending` times in vain."""

    check_after_seconds: float = 0.0
    result: Outcome = field(default_factory=Accepted)
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """What a whole call gets: an HTTP status with a body, a reset, or a page. `applied`: after it was carried out."""

    how: int | Literal["drop", "garbage"]
    body: Mapping[str, object] = field(default_factory=dict)
    applied: bool = False
    retry_after_seconds: float | None = None


POISONS: Mapping[str, Fault] = {
    "refuse": Fault(400, {"error": "an item cannot be read"}),
    "fail": Fault(500, {"error": "broken"}),
    "fail_applied": Fault(500, {"error": "broken"}, applied=True),
}


class _Submission:
    """What is left to do of a job, by item."""

    def __init__(self, jobs: Sequence[tuple[Item, Job]]) -> None:
        self.undone = {item.id: (item, job) for item, job in jobs}
        self.done: dict[str, Outcome] = {}


class Account:
    """`compare_and_set`: a push that expects another quantity than is shown meets a Conflict."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tokens = TokenBook(name)
        self.compare_and_set = False
        self.shown: dict[str, int] = {}
        self.writes: list[Write] = []
        self.calls: list[Call] = []
        self.calls_at_once_most = 0
        self.pushes_of_one_id_at_once_most = 0
        self._reserved: dict[str, int] = {}
        self._answers: defaultdict[tuple[Route, str], deque[Outcome | Observed | Job]] = defaultdict(deque)
        self._faults: defaultdict[Route, deque[Fault]] = defaultdict(deque)
        self._poisons: dict[str, Fault] = {}
        self._jobs: dict[str, _Submission] = {}
        self._jobs_made = 0
        self._gates: dict[tuple[Route, bool], Gate] = {}
        self._ended: defaultdict[Route, Tally] = defaultdict(Tally)
        self._written = Tally()
        self._calls_at_once = 0
        self._ids_at_once: Counter[str] = Counter()

    # --- For tests: what is there ---

    def put(self, *ids: str, quantity: int = 0) -> None:
        """Items that exist; a push of any other is rejected."""
        self.shown.update(dict.fromkeys(ids, quantity))

    def sold(self, id: str, n: int = 1) -> None:
        """A customer buys n units."""
        assert 0 <= n <= self.shown[id]
        self.shown[id] -= n

    def reserve(self, id: str, minimum: int) -> None:
        """From now on a push below `minimum` meets a Floor; 0 lifts it."""
        self._reserved[id] = minimum

    def quantities(self, id: str) -> list[int]:
        """Every quantity that took effect for an item, in order."""
        return [write.quantity for write in self.writes if write.id == id]

    def called(self, route: Route = "/push") -> list[Call]:
        return [call for call in self.calls if call.route == route]

    async def wait_for_calls(self, n: int, route: Route = "/push") -> None:
        """Until n calls of a route have ended since the account is there."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self._ended[route].wait_for(n)

    async def wait_for_writes(self, n: int) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self._written.wait_for(n)

    # --- For tests: what will be answered ---

    def say(self, id: str, *answers: Outcome | Job, route: Route = "/push") -> None:
        """Answers for the next pushes (or reads) of one item; Accepted applies the push whatever stands against it."""
        self._answers[route, id].extend(answers)

    def fail_next(
        self,
        how: int | Literal["drop", "garbage"],
        body: Mapping[str, object] | None = None,
        *,
        applied: bool = False,
        times: int = 1,
        route: Route = "/push",
    ) -> None:
        """The next calls of a route get this instead of their answer; `applied`: they take effect all the same."""
        self._faults[route].extend([Fault(how, body or {}, applied)] * times)

    def throttle(
        self, scope: Scope = Scope.STORE, seconds: float | None = None, *, times: int = 1, route: Route = "/push"
    ) -> None:
        body = {"error": "throttled", "scope": scope, "message": "slow down"}
        self._faults[route].extend([Fault(429, body, retry_after_seconds=seconds)] * times)

    def poison(self, id: str, how: Literal["refuse", "fail", "fail_applied"] = "refuse") -> None:
        """Every push with this item gets HTTP 400, or 500 without or with taking effect, as a whole."""
        self._poisons[id] = POISONS[how]

    def cure(self, id: str) -> None:
        del self._poisons[id]

    def forget_jobs(self) -> None:
        self._jobs.clear()

    @asynccontextmanager
    async def gate(self, route: Route = "/push", *, after: bool = False) -> AsyncIterator[Gate]:
        """Holds every call of a route, before or after it takes effect, until `gate.open()` or the end of the block.

        A call whose client leaves meanwhile takes effect all the same.
        """
        assert (route, after) not in self._gates
        gate = self._gates[route, after] = Gate()
        try:
            yield gate
        finally:
            del self._gates[route, after]
            gate.open()

    def issue(self) -> Pair:
        return self.tokens.issue()

    def later(self, seconds: float) -> None:
        """As if so much time had passed for the account's tokens."""
        self.tokens.offset_seconds += seconds

    def expire_access(self) -> None:
        self.tokens.expire_access()

    def kill_access(self) -> None:
        self.tokens.kill_access()

    def kill_refresh(self) -> None:
        self.tokens.kill_refresh()

    # --- For the server ---

    def next_fault(self, route: Route, ids: Iterable[str]) -> Fault | None:
        if self._faults[route]:
            return self._faults[route].popleft()
        if route != "/push":
            return None
        return next((self._poisons[id] for id in ids if id in self._poisons), None)

    def push(self, items: Sequence[Item]) -> list[JsonRow]:
        """Carry out one push; what is submitted shares one job."""
        answers = [self._answer_to(item) for item in items]
        jobs = [(item, answer) for item, answer in zip(items, answers, strict=True) if isinstance(answer, Job)]
        handle = self._submit(jobs) if jobs else ""
        return [
            json_row(item.id, Submitted(handle, answer.check_after_seconds) if isinstance(answer, Job) else answer)
            for item, answer in zip(items, answers, strict=True)
        ]

    def ask(self, handle: str) -> list[JsonRow] | None:
        """None: there is no such job."""
        job = self._jobs.get(handle)
        if job is None:
            return None
        waiting: dict[str, Outcome] = {}
        for id, (item, answer) in list(job.undone.items()):
            if answer.pending:
                job.undone[id] = (item, dataclasses.replace(answer, pending=answer.pending - 1))
                waiting[id] = Submitted(handle, answer.check_after_seconds)
                continue
            if isinstance(answer.result, Accepted):
                self._apply(item)
            job.done[id] = answer.result
            del job.undone[id]
        return [json_row(id, outcome) for id, outcome in (job.done | waiting).items()]

    def read(self, ids: Sequence[str]) -> list[JsonRow]:
        return [json_row(id, self._shown_or(id)) for id in ids]

    async def hold(self, route: Route, *, after: bool) -> None:
        if (gate := self._gates.get((route, after))) is not None:
            await gate.hold()

    def enter(self, ids: Sequence[str]) -> None:
        self._calls_at_once += 1
        self._ids_at_once.update(ids)
        self.calls_at_once_most = max(self.calls_at_once_most, self._calls_at_once)
        together = (self._ids_at_once[id] for id in ids)
        self.pushes_of_one_id_at_once_most = max(self.pushes_of_one_id_at_once_most, *together, 0)

    def leave(self, ids: Sequence[str]) -> None:
        self._calls_at_once -= 1
        self._ids_at_once.subtract(ids)

    def note(self, call: Call) -> None:
        self.calls.append(call)
        self._ended[call.route].bump()

    def give_up(self) -> None:
        """The server stops: nobody is to wait any more."""
        for gate in self._gates.values():
            gate.give_up()
        for tally in (*self._ended.values(), self._written):
            tally.close()

    def _answer_to(self, item: Item) -> Outcome | Job:
        answer = self._said("/push", item.id) or self._natural_answer(item)
        assert not isinstance(answer, Observed)
        if isinstance(answer, Accepted):
            self._apply(item)
        return answer

    def _natural_answer(self, item: Item) -> Outcome:
        shown, minimum = self.shown.get(item.id), self._reserved.get(item.id, 0)
        if shown is None:
            return Rejected(f"There is no item {item.id}")
        if self.compare_and_set and item.expected not in {None, shown}:
            return Conflict(shown)
        if item.quantity < minimum:
            return Floor(minimum, f"{minimum} reserved")
        return Accepted()

    def _shown_or(self, id: str) -> Outcome | Observed:
        said = self._said("/read", id)
        assert not isinstance(said, Job)
        if said is not None:
            return said
        return Observed(self.shown[id]) if id in self.shown else Rejected(f"There is no item {id}")

    def _said(self, route: Route, id: str) -> Outcome | Observed | Job | None:
        queue = self._answers[route, id]
        return queue.popleft() if queue else None

    def _submit(self, jobs: Sequence[tuple[Item, Job]]) -> str:
        self._jobs_made += 1
        handle = f"job-{self._jobs_made}"
        self._jobs[handle] = _Submission(jobs)
        return handle

    def _apply(self, item: Item) -> None:
        self.shown[item.id] = item.quantity
        self.writes.append(Write(item.id, item.quantity, time.monotonic()))
        self._written.bump()


def json_row(id: str, answer: Outcome | Observed) -> JsonRow:
    return {"id": id, "outcome": type(answer).__name__.lower(), **dataclasses.asdict(answer)}
