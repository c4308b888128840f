"""What the routes need, made by the composition root and passed in."""

from __future__ import annotations

from dataclasses import dataclass

from litestar import Litestar
from litestar.datastructures import State

from lumbung.api.bodies import Bodies
from lumbung.api.group_commit import GroupCommit
from lumbung.api.metrics import ApiMetrics
from lumbung.api.partners import Partners
from lumbung.clock import Clock
from lumbung.db.pool import Pool
from lumbung.settings import Settings


@dataclass(frozen=True, slots=True)
class ApiContext:
    settings: Settings
    clock: Clock
    pool: Pool
    bodies: Bodies
    partners: Partners
    commits: GroupCommit
    metrics: ApiMetrics

    def as_state(self) -> State:
        """Of the application. Not a dependency: to inject one costs as much as to check a signature."""
        return State({"context": self}, deep_copy=False)


def context_of(app: Litestar) -> ApiContext:
    context: ApiContext = app.state.context
    return context
