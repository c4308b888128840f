"""Commands where something is missing, in use, full or broken: one line that says what to do, and nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from lumbung.cli.compose import maintain
from lumbung.cli.roles import check_port, resolved
from lumbung.client import PartnerClient
from lumbung.db.pool import Pool
from lumbung.errors import ConfigurationError
from lumbung.keyring import Keyring
from lumbung.settings import Settings
from tests.cli.conftest import Operator
from tests.cli.test_processes import Lumbung, free_port, get, left_behind
from tests.conftest import SERVER_URL, in_database
from tests.flow.hub import until

ROOM_BYTES = 400 * 1024 * 1024


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


# Addresses and ports


def refusal_of_port(host: str, port: int) -> str:
    with pytest.raises(ConfigurationError) as refused:
        check_port(host, port)
    return str(refused.value)


def test_a_port_in_use_is_told_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refusal_of_port("127.0.0.1", port) == (
            f"Cannot listen on 127.0.0.1:{port}: Address already in use. "
            "Stop what listens there, or choose another --port"
        )


def test_an_address_of_another_machine_is_told_with_what_to_do() -> None:
    assert refusal_of_port("203.0.113.9", 8080) == (
        "Cannot listen on 203.0.113.9:8080: Cannot assign requested address. "
        "--host must be an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them"
    )


@pytest.mark.skipif(shutil.which("setpriv") is None or os.geteuid() != 0, reason="needs root, to give a right away")
def test_a_port_of_the_system_is_told_with_what_to_do(place: Path) -> None:
    without = ["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"]
    command = [sys.executable, "-m", "lumbung", "serve", "--port", "80", "--data-dir", str(place / "data")]
    done = subprocess.run([*without, *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        78,
        "lumbung: Cannot listen on 127.0.0.1:80: Permission denied. "
        "Ports below 1024 are for the system: choose another --port, with a proxy before it\n",
    )
    assert not (place / "data").exists()


def test_a_name_is_listened_on_by_its_address() -> None:
    assert resolved("localhost") in ("127.0.0.1", "::1")
    assert resolved("127.0.0.1") == "127.0.0.1"
    for host in ("", "a..b", "nowhere.invalid"):
        with pytest.raises(ConfigurationError, match="--host must be an address of this machine"):
            resolved(host)


def test_a_worker_whose_calls_cannot_leave_from_where_they_should_does_not_start(place: Path) -> None:
    """Its database is away as well, which alone it would wait for."""
    env = {"LUMBUNG_CALL_SOURCE_ADDRESS": "203.0.113.9", "LUMBUNG_DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    process = Lumbung("serve", "--roles", "worker", "--data-dir", str(place / "data"), place=place, **env)
    assert process.until_ended() == 78
    assert (
        "Calls cannot leave from 203.0.113.9 (Cannot assign requested address): set LUMBUNG_CALL_SOURCE_ADDRESS to an"
        " address of this machine, or leave it empty" in process.said
    )


# The data directory and the key file


@pytest.mark.parametrize("place_of", ["data", "data/in"])
def test_a_file_in_the_place_of_the_data_directory_is_named(place: Path, place_of: str) -> None:
    (place / "data").write_text("mine")
    process = Lumbung("--data-dir", str(place / place_of), "tenant", "list", place=place)
    assert process.until_ended() == 78
    assert str(place / "data") in process.said
    assert process.said.count("\n") == 1
    assert (place / "data").read_text() == "mine"


def keys_of(operator: Operator) -> Path:
    return operator.folder / "keys"


def test_a_lost_key_file_is_not_replaced_in_silence(operator: Operator) -> None:
    operator.done("tenant", "add", "Toko")
    operator.done("partner", "add", "--id", "P1")
    kept = keys_of(operator).read_bytes()
    keys_of(operator).unlink()
    before = operator.contents()
    for words in (("partner", "add", "--id", "P2"), ("partner", "rotate", "P1"), ("tenant", "list")):
        refused = operator(*words)
        assert refused.exit == 78
        assert f"The key file {keys_of(operator)} is missing" in refused.err
        assert "put it back from its copy" in refused.err
        assert not keys_of(operator).exists()
    assert operator.contents() == before
    keys_of(operator).write_bytes(kept)
    keys_of(operator).chmod(0o600)
    operator.done("partner", "rotate", "P1")


def test_a_lost_key_file_is_made_anew_when_that_is_asked_for(operator: Operator) -> None:
    operator.done("tenant", "add", "Toko")
    operator.done("partner", "add", "--id", "P1")
    keys_of(operator).unlink()
    assert operator.done("key", "new") == (
        f"{keys_of(operator)} was made: keep a copy of it, apart from the copies of the database\n"
    )
    operator.done("partner", "rotate", "P1")
    assert "WRONG partner" not in operator("doctor").out


def test_a_new_key_comes_first_and_the_others_stay(operator: Operator) -> None:
    operator.done("tenant", "add", "Toko")
    operator.done("partner", "add", "--id", "P1")
    before = keys_of(operator).read_text()
    operator.done("key", "new")
    assert keys_of(operator).read_text().endswith(before)
    assert len(keys_of(operator).read_text()) > len(before)
    assert "WRONG partner" not in operator("doctor").out


def test_a_new_installation_makes_its_key_file(operator: Operator) -> None:
    assert not keys_of(operator).exists()
    operator.done("tenant", "add", "Toko")
    assert Keyring.load(keys_of(operator), create=False).is_missing() is False


def test_a_hub_that_waits_for_its_key_file_goes_on_by_itself_when_it_is_put_back(
    database_url: str, place: Path
) -> None:
    where = {"LUMBUNG_DATABASE_URL": database_url, "LUMBUNG_DATA_DIR": str(place / "data")}
    assert Lumbung("tenant", "add", "Toko", place=place, **where).until_ended() == 0
    added = Lumbung("partner", "add", "--id", "P1", place=place, **where)
    assert added.until_ended() == 0
    secret = added.printed.split("secret: ")[1].strip()
    keys = place / "data" / "keys"
    keys.rename(place / "kept")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    hub = Lumbung("serve", "--port", str(port), place=place, **where)
    try:
        hub.until(lambda: "that only its keys open" in hub.said, "a word about the key file")
        hub.until(lambda: get(f"{url}/readyz")[0], "an API")
        assert json.loads(get(f"{url}/readyz")[1]) == {"status": "not ready", "reason": "The key file is missing"}
        assert PartnerClient(url, "P1", secret).history().status == 500
        assert not keys.exists()
        (place / "kept").rename(keys)
        hub.until_ready(url)
        assert PartnerClient(url, "P1", secret).history().status == 200
    finally:
        hub.terminate()
        hub.until_ended()


# Databases


def test_a_schema_that_is_newer_is_warned_of(operator: Operator) -> None:
    operator.done("tenant", "add", "Toko")
    operator.execute("INSERT INTO migration (number, name, digest) VALUES (1000, 'later', 'x')")
    listed = operator("tenant", "list")
    assert listed.exit == 0
    assert listed.err.count("the schema is newer than this Lumbung") == 1


async def test_a_database_that_comes_by_and_by_is_told_of_once_at_each_step() -> None:
    name = f"lumbung_later_{uuid4().hex}"
    server = await asyncpg.connect(os.environ[SERVER_URL])
    settings = Settings(poll_seconds=0.01)
    with capture_logs() as logs:

        async def told(words: str) -> bool:
            return any(words in f"{line['event']} {line.get('error')}" for line in logs)

        async with Pool(in_database(os.environ[SERVER_URL], name), settings) as pool:
            maintaining = asyncio.create_task(maintain(pool, settings))
            try:
                await until(lambda: told("does not exist"), bool)
                await server.execute(f'CREATE DATABASE "{name}" ALLOW_CONNECTIONS false')
                await until(lambda: told("not currently accepting connections"), bool)
                await server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
                await until(lambda: told("ready None"), bool)
            finally:
                maintaining.cancel()
                await asyncio.gather(maintaining, return_exceptions=True)
    await server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await server.close()
    events = [line["event"] for line in logs if line["event"] != "migration applied"]
    assert events == ["not ready, trying again", "not ready, trying again", "ready"]


# Full disks


@contextmanager
def small_disk(at: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    at.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM_BYTES},mode=755", "none", str(at)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def fill(disk: Path) -> Path:
    """Take every byte that is left."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return ballast


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_refuses_updates_and_the_hub_goes_on_when_there_is_room(place: Path) -> None:
    with small_disk(place / "disk") as disk:
        data = ("--data-dir", str(disk / "data"))
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        hub = Lumbung("serve", "--port", str(port), *data, place=place)
        try:
            hub.until_ready(url)
            client = merchant(place, url, data)
            assert update(client, 1) == 200
            ballast = fill(disk)
            taken, refused = 1, 0
            while refused < 20:
                status = update(client, taken + 1)
                assert status in (200, 503)
                taken, refused = (taken + 1, 0) if status == 200 else (taken, refused + 1)
            assert get(f"{url}/healthz")[0] == 200
            ballast.unlink()
            hub.until(lambda: update(client, taken + 1) == 200, "an update")
            hub.until_ready(url)
            assert client.history(limit=1).json["total_record"] == taken + 1
        finally:
            hub.terminate()
            hub.until_ended()
        assert left_behind(place) == []


def merchant(place: Path, url: str, data: tuple[str, str]) -> PartnerClient:
    (place / "v.csv").write_text("sku,name\nsku1,Padi\n")
    for words in (("tenant", "add", "Toko"), ("variant", "import", str(place / "v.csv"))):
        assert Lumbung(*data, *words, place=place).until_ended() == 0
    added = Lumbung(*data, "partner", "add", "--id", "P1", place=place)
    assert added.until_ended() == 0
    return PartnerClient(url, "P1", added.printed.split("secret: ")[1].strip())


def update(client: PartnerClient, available: int) -> int:
    stock = {"sku": "sku1", "warehouse": "default", "available_stock": available, "buffer_stock": 0}
    return client.update_stocks({**stock, "channel_stock": []}).status


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_disk_without_room_for_a_key_file_or_a_database_is_named(place: Path) -> None:
    with small_disk(place / "disk") as disk:
        fill(disk)
        process = Lumbung("--data-dir", str(disk / "data"), "tenant", "list", place=place)
        assert process.until_ended() == 78
        assert process.said.startswith("lumbung: No cluster can be made in ")
        assert "No space left on device" in process.said
        assert sorted(path.name for path in (disk / "data").iterdir()) == ["postgres.lock", "postgres.users"]
        with pytest.raises(ConfigurationError, match="No space left on device"):
            Keyring.load(disk / "keys", create=True)
        assert sorted(path.name for path in disk.iterdir()) == ["ballast", "data"]


needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")


@needs_full_device
def test_output_that_finds_no_room_is_told_and_may_have_taken_effect(operator: Operator, place: Path) -> None:
    environment = {**os.environ, "HOME": str(place)}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lumbung", "tenant", "add", "Toko"],
            stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        1,
        "lumbung: No space left on device: output is missing, but the command may have taken effect\n",
    )
    assert [row["name"] for row in operator.json("tenant", "list")] == ["Toko"]


class Unheard(Lumbung):
    """A command whose stderr goes to a disk without room."""

    def __init__(self, *arguments: str, place: Path, **env: str):
        (place / "0.err").symlink_to("/dev/full")
        super().__init__(*arguments, place=place, **env)

    @property
    def said(self) -> str:
        return ""


@needs_full_device
def test_a_hub_whose_log_finds_no_room_goes_on(database_url: str, place: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    where = {"LUMBUNG_DATABASE_URL": database_url, "LUMBUNG_DATA_DIR": str(place / "data")}
    hub = Unheard("serve", "--port", str(port), place=place, **where)
    try:
        hub.until_ready(url)
        assert get(f"{url}/nowhere")[0] == 404
    finally:
        hub.terminate()
        assert hub.until_ended() == 0
