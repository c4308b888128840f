"""What the routes need, made by the composition root and passed in."""

from __future__ import annotations

from dataclasses import dataclass

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
