"""`demo` and `serve` as real processes: what they print, what they leave behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from lumbung.client import PartnerClient
from lumbung.db.schema import newest_version

T = TypeVar("T")

WAIT_SECONDS = 60.0
LOOK_SECONDS = 0.02


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


class Lumbung(subprocess.Popen[bytes]):
    """A command whose output goes to files, which never fill up as pipes do."""

    def __init__(self, *arguments: str, place: Path, **env: str):
        plain = {name: value for name, value in os.environ.items() if not name.startswith("LUMBUNG_")}
        number = len(list(place.glob("*.out")))
        self._out, self._err = place / f"{number}.out", place / f"{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            super().__init__(
                [sys.executable, "-m", "lumbung", *arguments],
                stdout=out,
                stderr=err,
                env={**plain, "HOME": str(place), **env},
            )

    @property
    def printed(self) -> str:
        return self._out.read_text()

    @property
    def said(self) -> str:
        """On stderr."""
        return self._err.read_text()

    def until(self, right: Callable[[], T | None], what: str) -> T:
        """What `right` gives once that is true. Fails when the process ends before, or after WAIT_SECONDS."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            with suppress(subprocess.TimeoutExpired):
                self.wait(LOOK_SECONDS)
            running = self.returncode is None
            if found := right():
                return found
            assert running, f"ended ({self.returncode}) without {what}\n{self.printed}\n{self.said}"
            assert time.monotonic() < deadline, f"no {what} in {WAIT_SECONDS} s\n{self.printed}\n{self.said}"

    def until_printed(self, wanted: str) -> str:
        self.until(lambda: wanted in self.printed, wanted)
        return self.printed

    def until_ready(self, url: str) -> str:
        return self.until(lambda: ready(url), f"readiness of {url}")

    def until_ended(self, seconds: float = WAIT_SECONDS) -> int:
        try:
            return self.wait(seconds)
        finally:
            self.kill()  # does nothing to one that has ended


def left_behind(place: Path) -> list[str]:
    """Processes whose command line names the place."""
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(place) in line]


@pytest.fixture
def demo(place: Path) -> Iterator[tuple[Lumbung, Path]]:
    process = Lumbung(
        "demo", "--port", "0", "--sandbox-port", "0", "--data-dir", str(place / "data"), "--info", str(place / "i"),
        place=place,
    )  # fmt: skip
    try:
        yield process, place
    finally:
        process.terminate()  # does nothing to one that has ended; SIGKILL would leave the database
        process.until_ended()


def test_the_demonstration_shows_the_main_job_and_ctrl_c_leaves_no_process(
    demo: tuple[Lumbung, Path],
) -> None:
    process, place = demo
    printed = process.until_printed("Serving on")
    info = json.loads((place / "i").read_text())
    assert list(info) == [
        "api_url", "sandbox_url", "partner_id", "secret", "tenant_id", "warehouses", "stores", "skus", "database_url",
    ]  # fmt: skip
    assert (info["partner_id"], info["warehouses"], len(info["skus"])) == ("B98KL87", ["default", "surabaya"], 50)
    assert [set(store) for store in info["stores"]] == [{"id", "name", "channel"}] * 4
    assert {store["channel"] for store in info["stores"]} == {"blib", "bklp", "shpe"}
    assert re.search(r'200 \{"transaction_code":"[0-9a-f-]{36}"\}', printed)
    assert "Padi di Bukalapak now shows 30" in printed
    assert "200 listings, each with its exact number." in printed
    curl = next(line for line in printed.splitlines() if line.startswith("curl "))
    answer = subprocess.run(shlex.split(curl), capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["total_record"] == 52
    client = PartnerClient(info["api_url"], info["partner_id"], info["secret"])
    assert client.history(limit=1).json["limit"] == 1
    process.send_signal(signal.SIGINT)
    assert process.until_ended() == 0
    assert left_behind(place) == []


def test_the_demonstration_once_exits_zero(place: Path) -> None:
    process = Lumbung(
        "demo", "--once", "--port", "0", "--sandbox-port", "0", "--data-dir", str(place / "data"), place=place
    )
    assert process.until_ended(120) == 0, process.said
    assert "each with its exact number" in process.printed
    assert left_behind(place) == []


def test_killing_the_demonstration_leaves_only_the_database_that_the_next_one_takes_over(
    demo: tuple[Lumbung, Path],
) -> None:
    process, place = demo
    process.until_printed("Serving on")
    children = [c for c in psutil.Process(process.pid).children(recursive=True) if "lumbung" in " ".join(c.cmdline())]
    assert len(children) == 3
    process.kill()
    process.until_ended()
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert (len(gone), alive) == (3, [])
    again = Lumbung(
        "demo", "--once", "--port", "0", "--sandbox-port", "0", "--data-dir", str(place / "data"), place=place
    )
    assert again.until_ended(120) == 0
    assert left_behind(place) == []


def test_two_demonstrations_do_not_share_a_directory(demo: tuple[Lumbung, Path]) -> None:
    process, place = demo
    process.until_printed("Starting")
    second = Lumbung("demo", "--once", "--port", "0", "--data-dir", str(place / "data"), place=place)
    assert second.until_ended() == 78
    assert f"A demonstration runs in {place / 'data'} already" in second.said


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def ready(url: str) -> str:
    """What /readyz says when it is; "" before."""
    status, body = get(f"{url}/readyz")
    return body if status == 200 else ""


def test_serve_runs_every_role_and_stops_on_sigterm(place: Path) -> None:
    port = free_port()
    process = Lumbung("serve", "--port", str(port), "--data-dir", str(place / "data"), place=place)
    try:
        assert json.loads(process.until_ready(f"http://127.0.0.1:{port}")) == {
            "status": "ready",
            "schema_version": newest_version(),
        }
        roles = sorted(
            match.group(1)
            for child in psutil.Process(process.pid).children()
            if (match := re.search(r"--roles (\w+)", " ".join(child.cmdline())))
        )
        assert roles == ["api", "worker"]
        tenant = Lumbung("--data-dir", str(place / "data"), "tenant", "add", "Toko", place=place)
        assert tenant.until_ended() == 0
        assert get(f"http://127.0.0.1:{port}/healthz")[0] == 200
    finally:
        process.terminate()
        process.until_ended()
    assert process.returncode == 0
    assert left_behind(place) == []


def test_a_role_that_is_killed_is_started_again(place: Path) -> None:
    port = free_port()
    process = Lumbung("serve", "--port", str(port), "--data-dir", str(place / "data"), place=place)
    try:
        process.until_ready(f"http://127.0.0.1:{port}")
        [api] = [c for c in psutil.Process(process.pid).children() if "--roles api" in " ".join(c.cmdline())]
        api.kill()
        psutil.wait_procs([api], timeout=30)
        process.until_ready(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.until_ended()
    assert left_behind(place) == []


STARTS = [
    ("serve", "--port", "0"),
    ("demo", "--port", "0", "--sandbox-port", "0"),
    ("tenant", "list"),
]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("words", STARTS, ids=lambda words: str(words[0]))
def test_a_signal_during_the_start_leaves_no_process(
    words: tuple[str, ...], number: signal.Signals, place: Path
) -> None:
    environment = {"LUMBUNG_DATA_DIR": str(place / "data")}
    directory = ("--data-dir", str(place / "data")) if words[0] == "demo" else ()
    process = Lumbung(*words, *directory, place=place, **environment)
    process.until((place / "data" / "postgres" / "postmaster.pid").exists, "postmaster.pid")
    process.send_signal(number)
    assert process.until_ended() == 130
    assert left_behind(place) == []


def test_sigterm_again_and_again_neither_breaks_off_the_stop_nor_the_start(place: Path) -> None:
    port = free_port()
    for begun in (
        (place / "data" / "postgres" / "postmaster.pid").exists,
        lambda: ready(f"http://127.0.0.1:{port}") != "",
    ):
        process = Lumbung("serve", "--port", str(port), "--data-dir", str(place / "data"), place=place)
        process.until(begun, "what it is stopped in")
        while process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SECONDS)
        assert left_behind(place) == []


def test_several_processes_may_serve_one_database_from_the_start(empty_database_url: str, place: Path) -> None:
    ports = [free_port(), free_port()]
    env = {"LUMBUNG_DATABASE_URL": empty_database_url, "LUMBUNG_DATA_DIR": str(place / "data")}
    processes = [Lumbung("serve", "--roles", "api", "--port", str(port), place=place, **env) for port in ports]
    processes.append(Lumbung("serve", "--roles", "worker", place=place, **env))
    try:
        for process, port in zip(processes, ports, strict=False):
            process.until_ready(f"http://127.0.0.1:{port}")
        worker = processes[-1]
        worker.until(lambda: "the worker delivers" in worker.said, "delivery")
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.until_ended()
    assert [process.returncode for process in processes] == [0, 0, 0]


def test_a_port_in_use_is_told_in_one_line(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = Lumbung("serve", "--port", str(port), "--data-dir", str(place / "data"), place=place)
        assert process.until_ended() == 78
    assert process.said.strip().splitlines()[-1] == (
        f"lumbung: Cannot listen on 127.0.0.1:{port}: Address already in use."
        " Stop what listens there, or choose another --port"
    )


def test_an_api_starts_before_its_database_and_says_that_it_is_not_ready(place: Path) -> None:
    port = free_port()
    env = {"LUMBUNG_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "LUMBUNG_DATA_DIR": str(place / "data")}
    process = Lumbung("serve", "--roles", "api", "--port", str(port), place=place, **env)
    try:
        status, body = process.until(
            lambda: found if (found := get(f"http://127.0.0.1:{port}/readyz"))[0] else None, "any answer"
        )
        assert status == 503
        assert json.loads(body)["reason"].startswith("The database cannot be reached")
        assert get(f"http://127.0.0.1:{port}/healthz")[0] == 200
    finally:
        process.terminate()
        process.until_ended()
    assert process.returncode == 0
