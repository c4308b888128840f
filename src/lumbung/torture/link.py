"""One connection through a fault proxy: two ends, a pipe each way, and the fault that stands."""

from __future__ import annotations

from collections.abc import Callable

from lumbung.torture.end import Closing, End
from lumbung.torture.fault import DARK, PASS, REFUSING, Direction, Fault, Mode
from lumbung.torture.pipe import Pipe
from lumbung.torture.traffic import Meter


class Link:
    """Made when a client has connected. `upstream` is the end to connect to the server with; `finished` is called
    once, when both ends are closed for good."""

    def __init__(self, client: End, meter: Meter, *, held_bytes_max: int, finished: Callable[[Link], None]) -> None:
        self._meter = meter
        self._finished = finished
        self._fault = PASS
        self._severed = False
        self._over = False
        self._reported = False
        self.client = client
        self.upstream = End(self._connected)
        self._requests = Pipe(Direction.REQUESTS, client, self.upstream, meter, held_bytes_max=held_bytes_max)
        self._answers = Pipe(Direction.ANSWERS, self.upstream, client, meter, held_bytes_max=held_bytes_max)
        client.out = self.upstream.into = self._requests
        client.into = self.upstream.out = self._answers
        client.left = self.upstream.left = self._one_left

    def start(self, fault: Fault) -> bool:
        """The fault that stands when the client connects. Returns whether the server is to be connected."""
        if fault.mode in REFUSING:
            self.reset()
            return False
        if not fault.lets_connect:
            self._lose_server()
        self.befall(fault)
        return not self._severed

    def befall(self, fault: Fault) -> None:
        """From now on this fault stands, and the one before has ended."""
        if fault == self._fault or self._over:
            return
        self._fault = fault
        maimed = self._severed or self._requests.lossy or self._answers.lossy
        if fault.mode is Mode.RESET or (maimed and fault.mode not in DARK):
            self.reset()
            return
        if fault.mode is Mode.HALF_OPEN:
            self._lose_server()
        self._requests.befall(fault)
        self._answers.befall(fault)

    def refused(self) -> None:
        """The server could not be connected. The client hears of it as soon as answers come through."""
        self.upstream.give_up()
        if self._fault.mode_of(Direction.ANSWERS) is not Mode.PASS:
            self._answers.close(Closing.BROKEN)
        elif not self._over:
            self.reset()
        self._one_left()

    def reset(self) -> None:
        """Both ends get an RST."""
        self._meter.was_reset()
        self._over = True
        self.client.reset()
        self.upstream.reset()
        if self.upstream.transport is None:
            self.upstream.give_up()

    def abort(self) -> None:
        """The proxy is closed; a server that is not connected by now will not be."""
        self._over = True
        self.client.abort()
        self._lose_server()

    def _connected(self, upstream: End) -> None:
        if self._over or self._severed:
            upstream.abort()
        else:
            self._requests.pump()

    def _lose_server(self) -> None:
        """Closes the server's end, or never opens it, and does not tell the client."""
        self._severed = True
        if self.upstream.transport is None:
            self.upstream.give_up()
        else:
            self.upstream.abort()

    def _one_left(self) -> None:
        if self.client.gone and self.upstream.gone and not self._reported:
            self._reported = True
            self._finished(self)
