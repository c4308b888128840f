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
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lumbung.client import PartnerClient

pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


def lumbung(*arguments: str, place: Path, **env: str) -> subprocess.Popen[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("LUMBUNG_")}
    return subprocess.Popen(
        [sys.executable, "-m", "lumbung", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**plain, "HOME": str(place), **env},
    )


def read_until(process: subprocess.Popen[str], wanted: str, stream: str = "stdout") -> str:
    """Read lines until one holds `wanted`; the process's own words are the signal."""
    pipe = getattr(process, stream)
    seen = ""
    for line in pipe:
        seen += str(line)
        if wanted in line:
            return seen
    raise AssertionError(f"ended without {wanted!r}: {seen}\n{process.stderr.read() if process.stderr else ''}")


def left_behind(place: Path) -> list[str]:
    """Processes whose command line names the place."""
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(place) in line]


@pytest.fixture
def demo(place: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    process = lumbung(
        "demo", "--port", "0", "--sandbox-port", "0", "--data-dir", str(place / "data"), "--info", str(place / "i"),
        place=place,
    )  # fmt: skip
    try:
        yield process, place
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_the_demonstration_shows_the_main_job_and_ctrl_c_leaves_no_process(
    demo: tuple[subprocess.Popen[str], Path],
) -> None:
    process, place = demo
    printed = read_until(process, "Serving on")
    info = json.loads((place / "i").read_text())
    assert list(info) == [
        "api_url", "sandbox_url", "partner_id", "secret", "tenant_id", "warehouses", "stores", "skus", "database_url",
    ]  # fmt: skip
    assert (info["partner_id"], info["warehouses"], len(info["skus"])) == ("B98KL87", ["default", "surabaya"], 50)
    assert [set(store) for store in info["stores"]] == [{"id", "name", "channel"}] * 2
    assert re.search(r'200 \{"transaction_code":"[0-9a-f-]{36}"\}', printed)
    assert "No connector: Lumbung cannot deliver to Bukalapak (bklp)" in printed
    assert "100 listings, each with its exact number." in printed
    curl = next(line for line in printed.splitlines() if line.startswith("curl "))
    answer = subprocess.run(shlex.split(curl), capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["total_record"] == 52
    client = PartnerClient(info["api_url"], info["partner_id"], info["secret"])
    assert client.history(limit=1).json["limit"] == 1
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert left_behind(place) == []


def test_the_demonstration_once_exits_zero(place: Path) -> None:
    process = lumbung(
        "demo", "--once", "--port", "0", "--sandbox-port", "0", "--data-dir", str(place / "data"), place=place
    )
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "each with its exact number" in printed
    assert left_behind(place) == []


def test_killing_the_demonstration_leaves_only_the_database_that_the_next_one_takes_over(
    demo: tuple[subprocess.Popen[str], Path],
) -> None:
    process, place = demo
    read_until(process, "Serving on")
    children = [c for c in psutil.Process(process.pid).children(recursive=True) if "lumbung" in " ".join(c.cmdline())]
    assert len(children) == 3
    process.kill()
    process.wait()
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert (len(gone), alive) == (3, [])
    again = lumbung(
        "demo", "--once", "--port", "0", "--sandbox-port", "0", "--data-dir", str(place / "data"), place=place
    )
    again.communicate(timeout=120)
    assert again.returncode == 0
    assert left_behind(place) == []


def test_two_demonstrations_do_not_share_a_directory(demo: tuple[subprocess.Popen[str], Path]) -> None:
    process, place = demo
    read_until(process, "Starting")
    second = lumbung("demo", "--once", "--port", "0", "--data-dir", str(place / "data"), place=place)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 78
    assert f"A demonstration runs in {place / 'data'} already" in errors


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


def wait_ready(url: str, process: subprocess.Popen[str]) -> str:
    while (found := get(f"{url}/readyz"))[0] != 200:
        assert process.poll() is None, process.communicate()
    return found[1]


def test_serve_runs_every_role_and_stops_on_sigterm(place: Path) -> None:
    port = free_port()
    process = lumbung("serve", "--port", str(port), "--data-dir", str(place / "data"), place=place)
    try:
        assert json.loads(wait_ready(f"http://127.0.0.1:{port}", process)) == {"status": "ready", "schema_version": 1}
        roles = sorted(
            match.group(1)
            for child in psutil.Process(process.pid).children()
            if (match := re.search(r"--roles (\w+)", " ".join(child.cmdline())))
        )
        assert roles == ["api", "worker"]
        tenant = lumbung("--data-dir", str(place / "data"), "tenant", "add", "Toko", place=place)
        tenant.communicate(timeout=60)
        assert tenant.returncode == 0
        assert get(f"http://127.0.0.1:{port}/healthz")[0] == 200
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert left_behind(place) == []


def test_a_role_that_is_killed_is_started_again(place: Path) -> None:
    port = free_port()
    process = lumbung("serve", "--port", str(port), "--data-dir", str(place / "data"), place=place)
    try:
        wait_ready(f"http://127.0.0.1:{port}", process)
        [api] = [c for c in psutil.Process(process.pid).children() if "--roles api" in " ".join(c.cmdline())]
        api.kill()
        psutil.wait_procs([api], timeout=30)
        wait_ready(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert left_behind(place) == []


def test_several_processes_may_serve_one_database_from_the_start(empty_database_url: str, place: Path) -> None:
    ports = [free_port(), free_port()]
    env = {"LUMBUNG_DATABASE_URL": empty_database_url, "LUMBUNG_DATA_DIR": str(place / "data")}
    processes = [lumbung("serve", "--roles", "api", "--port", str(port), place=place, **env) for port in ports]
    processes.append(lumbung("serve", "--roles", "worker", place=place, **env))
    try:
        for process, port in zip(processes, ports, strict=False):
            wait_ready(f"http://127.0.0.1:{port}", process)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0]


def test_a_port_in_use_is_told_in_one_line(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = lumbung("serve", "--port", str(port), "--data-dir", str(place / "data"), place=place)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 78
    assert errors.strip().splitlines()[-1] == (
        f"lumbung: Cannot listen on 127.0.0.1:{port}: Address already in use."
        " Stop what listens there, or choose another --port"
    )


def test_an_api_starts_before_its_database_and_says_that_it_is_not_ready(place: Path) -> None:
    port = free_port()
    env = {"LUMBUNG_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "LUMBUNG_DATA_DIR": str(place / "data")}
    process = lumbung("serve", "--roles", "api", "--port", str(port), place=place, **env)
    try:
        while (found := get(f"http://127.0.0.1:{port}/readyz"))[0] == 0:
            assert process.poll() is None
        assert found[0] == 503
        assert json.loads(found[1])["reason"].startswith("The database cannot be reached")
        assert get(f"http://127.0.0.1:{port}/healthz")[0] == 200
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0
