"""SIGTERM and Ctrl-C: what was begun is ended in order, from the first moment of a command to its last."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def orderly_end() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that what has been started is stopped on the way out.

    Once: a supervisor that repeats it must not break off the stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python has signals handled by the main thread only
        return
    told = False

    def as_ctrl_c(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told:
            return
        told = True
        ctrl_c = signal.getsignal(signal.SIGINT)  # an event loop has its own
        if not callable(ctrl_c):  # ignored, as a shell does for what it runs in the background
            ctrl_c = signal.default_int_handler
        ctrl_c(number, frame)

    usual = {number: signal.getsignal(number) for number in STOPPING}
    signal.signal(signal.SIGTERM, as_ctrl_c)
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextmanager
def setting(stop: asyncio.Event) -> Iterator[None]:
    """SIGTERM and Ctrl-C set `stop`; once they have, more of them say nothing new.

    Not `loop.add_signal_handler`: when its loop closes, SIGTERM would kill what is still to be stopped after it.
    """
    loop = asyncio.get_running_loop()

    def tell(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop.set)

    usual = {number: signal.signal(number, tell) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, _already_stopping if stop.is_set() else handler)


def _already_stopping(_number: int, _frame: FrameType | None) -> None:
    """Not SIG_IGN, which the programs that we still run would inherit."""
