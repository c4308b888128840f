"""What a fault proxy does to connections."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Direction(StrEnum):
    """REQUESTS: from the client to the server. ANSWERS: from the server to the client."""

    REQUESTS = "requests"
    ANSWERS = "answers"


class Mode(StrEnum):
    """What becomes of a connection while the fault stands, and of what is caught in it when the fault ends.

    - PASS: nothing is wrong.
    - DELAY: every chunk comes `delay_seconds` late. The rest comes at once when the fault ends.
    - DRIP: `tick_bytes` every `tick_seconds`. The rest comes at once when the fault ends.
    - HOLD: nothing comes through, closes and resets neither. It all comes, in order, when the fault ends.
    - DROP: a black hole, for closes and resets too; nothing is closed. New connections are accepted and go nowhere
      (unless only answers are dropped: those reach the server). When the fault ends, connections that lost something
      are reset; one that was idle all the while lives on.
    - HALF_OPEN: the server's end is closed and the client is not told; new connections are accepted and go nowhere.
      All of them are reset when the fault ends.
    - RESET: both ends get an RST at once, and so does every new connection. (A unix socket has no RST: it is closed.)
    - REFUSE: new connections get an RST; those that are there go on.
    """

    PASS = "pass"  # noqa: S105
    DELAY = "delay"
    DRIP = "drip"
    HOLD = "hold"
    DROP = "drop"
    HALF_OPEN = "half_open"
    RESET = "reset"
    REFUSE = "refuse"


DARK = frozenset({Mode.DROP, Mode.HALF_OPEN})
REFUSING = frozenset({Mode.RESET, Mode.REFUSE})
ONE_WAY = frozenset({Mode.DELAY, Mode.DRIP, Mode.HOLD, Mode.DROP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One mode and its figures. `direction` is for DELAY, DRIP, HOLD and DROP; None means both.

    ValueError for a figure that is missing or belongs to another mode.
    """

    mode: Mode
    direction: Direction | None = None
    delay_seconds: float = 0.0
    tick_bytes: int = 0
    tick_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.direction is not None and self.mode not in ONE_WAY:
            raise ValueError(f"{self.mode} has no direction")
        if (self.delay_seconds > 0) is not (self.mode is Mode.DELAY) or self.delay_seconds < 0:
            raise ValueError("delay_seconds above 0 belongs to delay, and to nothing else")
        for figure in (self.tick_bytes, self.tick_seconds):
            if (figure > 0) is not (self.mode is Mode.DRIP) or figure < 0:
                raise ValueError("tick_bytes and tick_seconds above 0 belong to drip, and to nothing else")

    def mode_of(self, direction: Direction) -> Mode:
        """What befalls one direction of a connection that is there: a refusal does not concern it."""
        if self.mode in REFUSING or self.direction not in (None, direction):
            return Mode.PASS
        return self.mode

    @property
    def lets_connect(self) -> bool:
        """Whether the server hears of a new connection."""
        return self.mode_of(Direction.REQUESTS) not in DARK


PASS = Fault(mode=Mode.PASS)
