"""Real children; they say that they are ready through a named pipe, so nothing here waits by the clock."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lumbung.clock import ManualClock
from lumbung.dispatch.supervisor import Child, Supervisor, parent_gone
from lumbung.errors import ConfigurationError

PATIENT = "import sys, signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)); {ready}; signal.pause()"
STUBBORN = "import sys, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {ready}\nwhile True: signal.pause()"
FAMILY = """
import signal, subprocess, sys
held = open({held!r}, "w")
subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], pass_fds=[held.fileno()])
held.write("born")
held.flush()
signal.pause()
"""


def python(name: str, code: str, fifo: Path | None = None, text: str = "'ready'") -> Child:
    """A child that runs `code`, in which {ready} tells the named pipe that it is."""
    ready = "" if fifo is None else f"f = open({str(fifo)!r}, 'w'); f.write({text}); f.close()"
    return Child(name=name, argv=[sys.executable, "-c", code.format(ready=ready)])


def make_fifo(tmp_path: Path, name: str = "fifo") -> Path:
    path = tmp_path / name
    os.mkfifo(path)
    return path


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Log:
    """What the supervisor told; `on` runs something at an event."""

    def __init__(self, on: Callable[[str, str], None] = lambda name, event: None):
        self.events: list[tuple[str, str, dict[str, object]]] = []
        self._on = on

    def __call__(self, name: str, event: str, facts: dict[str, object]) -> None:
        self.events.append((name, event, facts))
        self._on(name, event)

    def names(self) -> list[tuple[str, str]]:
        return [(name, event) for name, event, _ in self.events]

    def facts(self, event: str, fact: str) -> list[object]:
        return [facts[fact] for _, each, facts in self.events if each == event]

    def pid(self) -> int:
        pid = self.facts("started", "pid")[-1]
        assert isinstance(pid, int)
        return pid


def stop_after(exits: int, stop: asyncio.Event) -> Log:
    """Stops when so many exits were told."""
    left = [exits]

    def count(_: str, event: str) -> None:
        left[0] -= event == "exited"
        if left[0] == 0:
            stop.set()

    return Log(count)


async def test_children_run_until_asked_to_stop_and_then_end_by_sigterm(tmp_path: Path) -> None:
    stop, log = asyncio.Event(), Log()
    fifos = [make_fifo(tmp_path, name) for name in "ab"]
    children = [python(fifo.name, PATIENT, fifo) for fifo in fifos]
    running = asyncio.create_task(Supervisor().run(children, stop=stop, stop_seconds=30, on_event=log))
    for fifo in fifos:
        assert await asyncio.to_thread(fifo.read_text) == "ready"
    stop.set()
    await running
    assert sorted(log.names()) == [("a", "started"), ("a", "stopped"), ("b", "started"), ("b", "stopped")]
    assert log.facts("stopped", "code") == [3, 3]
    assert not any(lives(int(str(pid))) for pid in log.facts("started", "pid"))


async def test_a_child_that_ignores_sigterm_is_killed_when_its_time_is_up(tmp_path: Path) -> None:
    stop, log, fifo = asyncio.Event(), Log(), make_fifo(tmp_path)
    running = asyncio.create_task(
        Supervisor().run([python("a", STUBBORN, fifo)], stop=stop, stop_seconds=0.05, on_event=log)
    )
    await asyncio.to_thread(fifo.read_text)
    stop.set()
    await running
    assert log.names() == [("a", "started"), ("a", "killed"), ("a", "stopped")]
    assert (log.facts("killed", "after_seconds"), log.facts("stopped", "code")) == ([0.05], [-signal.SIGKILL])
    assert not lives(log.pid())


async def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    stop, log, held = asyncio.Event(), Log(), make_fifo(tmp_path)
    child = Child(name="a", argv=[sys.executable, "-c", FAMILY.format(held=str(held))])
    running = asyncio.create_task(Supervisor().run([child], stop=stop, stop_seconds=30, on_event=log))
    with await asyncio.to_thread(held.open) as pipe:
        assert await asyncio.to_thread(pipe.read, 4) == "born"
        stop.set()
        await running
        # The pipe ends when nobody is left who could write to it.
        assert await asyncio.to_thread(pipe.read) == ""
    assert log.facts("stopped", "code") == [-signal.SIGTERM]


async def test_a_child_that_dies_is_restarted_after_growing_delays() -> None:
    stop = asyncio.Event()
    log = stop_after(4, stop)
    supervisor = Supervisor(delay_first_seconds=0.001, delay_seconds_max=0.004)
    await supervisor.run([python("a", "raise SystemExit(5)")], stop=stop, stop_seconds=30, on_event=log)
    assert log.names() == [("a", "started"), ("a", "exited")] * 4
    assert log.facts("exited", "restart_in_seconds") == [0.001, 0.002, 0.004, 0.004]
    assert log.facts("exited", "code") == [5, 5, 5, 5]
    assert len(set(log.facts("started", "pid"))) == 4


async def test_a_child_that_was_killed_or_ended_well_is_restarted_too() -> None:
    stop = asyncio.Event()
    log = stop_after(4, stop)
    children = [python("killed", "import os; os.kill(os.getpid(), 9)"), python("well", "pass")]
    await Supervisor(delay_first_seconds=0.001).run(children, stop=stop, stop_seconds=30, on_event=log)
    assert {(name, facts["code"]) for name, event, facts in log.events if event == "exited"} == {
        ("killed", -signal.SIGKILL),
        ("well", 0),
    }


async def test_the_delay_begins_anew_after_a_steady_life() -> None:
    stop, clock = asyncio.Event(), ManualClock()
    counted = stop_after(4, stop)
    lives_seconds = iter([0.0, 59.0, 60.0, 0.0])

    def live(name: str, event: str, facts: dict[str, object]) -> None:
        if event == "started":
            clock.advance(next(lives_seconds))
        counted(name, event, facts)

    supervisor = Supervisor(delay_first_seconds=0.001, clock=clock)
    await supervisor.run([python("a", "pass")], stop=stop, stop_seconds=30, on_event=live)
    assert counted.facts("exited", "lived_seconds") == [0.0, 59.0, 60.0, 0.0]
    assert counted.facts("exited", "restart_in_seconds") == [0.001, 0.002, 0.001, 0.002]


async def test_a_child_that_is_waited_for_is_not_started_after_the_stop() -> None:
    stop = asyncio.Event()
    log = stop_after(1, stop)
    supervisor = Supervisor(delay_first_seconds=3600, delay_seconds_max=3600)
    await supervisor.run([python("a", "pass")], stop=stop, stop_seconds=30, on_event=log)
    assert log.names() == [("a", "started"), ("a", "exited")]


async def test_a_child_that_is_wrongly_configured_ends_everything_with_its_name(tmp_path: Path) -> None:
    log, fifo = Log(), make_fifo(tmp_path)
    waits = f"open({str(fifo)!r}).read(); raise SystemExit(78)"
    children = [python("api", PATIENT, fifo), python("worker", waits)]
    with pytest.raises(ConfigurationError) as caught:
        await Supervisor().run(children, stop=asyncio.Event(), stop_seconds=30, on_event=log)
    assert str(caught.value) == "worker cannot run as it is configured (its message is above)"
    assert sorted(log.names()) == [("api", "started"), ("api", "stopped"), ("worker", "started")]
    assert log.facts("stopped", "code") == [3]


async def test_code_78_after_the_first_life_is_a_death_like_any_other(tmp_path: Path) -> None:
    stop = asyncio.Event()
    log = stop_after(3, stop)
    mark = tmp_path / "mark"
    code = f"import pathlib; p = pathlib.Path({str(mark)!r}); c = 78 * p.exists(); p.touch(); raise SystemExit(c)"
    supervisor = Supervisor(delay_first_seconds=0.001)
    await supervisor.run([python("a", code)], stop=stop, stop_seconds=30, on_event=log)
    assert log.facts("exited", "code") == [0, 78, 78]


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    child = Child(name="api", argv=[str(tmp_path / "nothing")])
    log = Log()
    with pytest.raises(ConfigurationError, match=r"^api cannot be started: .*No such file"):
        await Supervisor().run([child], stop=asyncio.Event(), stop_seconds=30, on_event=log)
    assert log.events == []


async def test_a_program_that_vanishes_is_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nrm "{program}"\n')
    program.chmod(0o700)
    stop = asyncio.Event()
    log = Log(lambda _, event: stop.set() if event == "not_restarted" else None)
    supervisor = Supervisor(delay_first_seconds=0.001)
    await supervisor.run([Child(name="a", argv=[str(program)])], stop=stop, stop_seconds=30, on_event=log)
    assert log.names() == [("a", "started"), ("a", "exited"), ("a", "not_restarted")]


async def test_a_run_that_is_cancelled_leaves_no_child(tmp_path: Path) -> None:
    log, fifo = Log(), make_fifo(tmp_path)
    running = asyncio.create_task(
        Supervisor().run([python("a", PATIENT, fifo)], stop=asyncio.Event(), stop_seconds=30, on_event=log)
    )
    await asyncio.to_thread(fifo.read_text)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert log.facts("stopped", "code") == [3]
    assert not lives(log.pid())


async def test_a_child_has_a_session_of_its_own_and_gets_its_environment(tmp_path: Path) -> None:
    stop, fifo = asyncio.Event(), make_fifo(tmp_path)
    code = "import os, signal; text = f'{{os.getsid(0) == os.getpid()}} {{os.environ}}'; {ready}; signal.pause()"
    child = python("a", code, fifo, "text")
    child = replace(child, env={"MINE": "my own"})
    running = asyncio.create_task(Supervisor().run([child], stop=stop, stop_seconds=30, on_event=Log()))
    told = await asyncio.to_thread(fifo.read_text)
    assert told.startswith("True ")
    assert "'MINE': 'my own'" in told
    assert "'PATH': " in told
    stop.set()
    await running


PARENT = """
import asyncio, sys
from lumbung.dispatch.supervisor import Child, Supervisor
children = [Child(name=n, argv=[sys.executable, "-c", sys.argv[1]]) for n in "ab"]
run = Supervisor().run(children, stop=asyncio.Event(), stop_seconds=30, on_event=lambda *_: None)
asyncio.run(run)
"""
ORPHAN = """
import asyncio, os
from lumbung.dispatch.supervisor import parent_gone
async def main():
    gone = asyncio.create_task(parent_gone())
    await asyncio.sleep(0)
    os.write(1, b"up\\n")  # in one piece: two of us share the pipe
    await gone
    os.write(1, b"ended\\n")
asyncio.run(main())
"""


def test_when_the_supervisor_is_killed_its_children_end_themselves() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, ORPHAN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert [parent.stdout.readline() for _ in "ab"] == ["up\n", "up\n"]
    parent.kill()
    # The end of the output is the end of the last process that could write to it.
    assert parent.communicate(timeout=60)[0] == "ended\nended\n"
    assert parent.returncode == -signal.SIGKILL


async def test_what_is_written_to_a_child_is_not_the_end_of_its_parent() -> None:
    theirs, ours = os.pipe()
    gone = asyncio.create_task(parent_gone(theirs))
    await asyncio.sleep(0)
    os.write(ours, b"hello")
    for _ in range(3):
        await asyncio.sleep(0)
    assert not gone.done()
    os.close(ours)
    await gone
    os.close(theirs)


async def test_without_a_pipe_nobody_is_watched() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    gone = asyncio.create_task(parent_gone(nothing))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not gone.done()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    os.close(nothing)
