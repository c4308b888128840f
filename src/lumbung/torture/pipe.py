"""The pipe that carries one direction of a connection from one end to the other."""

from __future__ import annotations

import asyncio
from collections import deque

from lumbung.torture.end import Closing, End
from lumbung.torture.fault import DARK, PASS, Direction, Fault, Mode
from lumbung.torture.traffic import Meter

# A drip is to slow the writer down, as a slow line does: little is taken in ahead of it.
DRIP_AHEAD_BYTES_MAX = 65_536


class Pipe:
    """Carries what arrives at `source` to `sink`, in order, as the fault wants.

    Whatever cannot go at once waits in one queue, closings too, so a close never overtakes bytes. When the queue is
    full, or the sink takes no more, the source is not read.
    """

    def __init__(self, direction: Direction, source: End, sink: End, meter: Meter, *, held_bytes_max: int) -> None:
        self._direction = direction
        self._source = source
        self._sink = sink
        self._meter = meter
        self._held_bytes_max = held_bytes_max
        self._loop = asyncio.get_running_loop()
        self._fault = PASS
        self._mode = Mode.PASS
        self._queue: deque[tuple[float, bytes | Closing]] = deque()
        self._queued_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._late = False
        self.lossy = False
        """Something that arrived was thrown away by a fault."""
        self.finished = False
        """The source's closing was passed on."""

    def befall(self, fault: Fault) -> None:
        """From now on this fault stands. What the one before held goes as this one says."""
        self._fault = fault
        self._mode = fault.mode_of(self._direction)
        if self._mode in DARK and self._queue:
            self.lossy = True
            self.empty()
        self._stop_timer()
        self.pump()

    def take(self, data: bytes) -> None:
        self._meter.arrived(self._direction, data)
        if self._goes_straight():
            self._sink.write(data)
        elif self._is_kept():
            self._queue.append((self._loop.time(), data))
            self._queued_bytes += len(data)
            self.pump()

    def close(self, closing: Closing) -> None:
        """The source took its leave."""
        if self._goes_straight():
            self._pass_on(closing)
        elif self._is_kept():
            self._queue.append((self._loop.time(), closing))
            self.pump()

    def pump(self) -> None:
        """Writes as much of the queue as may go by now."""
        while self._queue and self._sink.open and not self._sink.full and self._is_due():
            _, item = self._queue.popleft()
            if isinstance(item, bytes):
                self._write(item)
            else:
                self._pass_on(item)
        self.regulate()

    def regulate(self) -> None:
        """Reads the source, unless there is nowhere to put what it says."""
        ahead_max = DRIP_AHEAD_BYTES_MAX if self._mode is Mode.DRIP else self._held_bytes_max
        blocked = self._queued_bytes >= ahead_max or (self._mode is Mode.PASS and self._sink.full)
        self._source.read(self._sink.gone or not blocked)

    def empty(self) -> None:
        """Throws away what is queued."""
        self._queue.clear()
        self._queued_bytes = 0
        self._stop_timer()
        self.regulate()

    def _goes_straight(self) -> bool:
        return self._mode is Mode.PASS and not self._queue and self._sink.open

    def _is_kept(self) -> bool:
        if self._mode in DARK:
            self.lossy = True
            return False
        return not self._sink.gone

    def _is_due(self) -> bool:
        """Whether the head of the queue may go now; sees to it that it is asked again when it may not."""
        if self._mode is Mode.DELAY:
            due = self._queue[0][0] + self._fault.delay_seconds
            if due > self._loop.time():
                self._ring_at(due)
                return False
        return self._mode is not Mode.HOLD and (self._mode is not Mode.DRIP or self._timer is None)

    def _write(self, data: bytes) -> None:
        if self._mode is Mode.DRIP:
            data, rest = data[: self._fault.tick_bytes], data[self._fault.tick_bytes :]
            if rest:
                self._queue.appendleft((self._loop.time(), rest))
            self._ring_at(self._loop.time() + self._fault.tick_seconds)
        self._queued_bytes -= len(data)
        self._late = True
        self._sink.write(data)

    def _pass_on(self, closing: Closing) -> None:
        self.finished = True
        if closing is Closing.FINISHED:
            self._sink.finish()
            if self._sink.out.finished:
                self._source.close()
                self._sink.close()
        elif self._late:
            self._sink.close()  # a reset would overtake, and undo, what was just delivered
        else:
            self._sink.reset()

    def _ring_at(self, when: float) -> None:
        self._stop_timer()
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.pump()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
