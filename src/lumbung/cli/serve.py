"""`lumbung serve`: one command that runs everything, or one role of it."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import structlog
import typer

from lumbung.cli import logs
from lumbung.cli.compose import database_server
from lumbung.cli.keeping import beside
from lumbung.cli.roles import ROLES, address, check_port, free_port, resolved, run_until_signalled
from lumbung.dispatch.supervisor import Child, Supervisor
from lumbung.errors import UsageError
from lumbung.keyring import Keyring
from lumbung.settings import PREFIX, Settings, load

log = structlog.get_logger()


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address that the API listens on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the API; 0 picks a free one.")] = None,
    roles: Annotated[str, typer.Option(help="api, worker, or both: one process each.")] = "api,worker",
    data_dir: Annotated[Path | None, typer.Option(help="Where the embedded database and the key file are.")] = None,
    supervised: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run the hub: the partner API and a worker, with the embedded PostgreSQL unless LUMBUNG_DATABASE_URL is set.

    An embedded PostgreSQL that dies meanwhile is started again.
    """
    wanted = read_roles(roles)
    settings = load(host=host, port=port, data_dir=data_dir or context.obj.data_dir)
    logs.configure(settings)
    if "api" in wanted:
        settings = replace(settings, host=resolved(settings.host))
        check_port(settings.host, settings.port)
        settings = replace(settings, port=settings.port or free_port(settings.host))
    Keyring.expected(settings.key_path)  # one that is corrupt is told before anything is started
    with database_server(settings) as (url, server):

        async def work(stop: asyncio.Event) -> None:
            if len(wanted) == 1:
                await beside(server, ROLES[wanted[0]](settings, url, stop))
            else:
                await beside(server, supervise(settings, url, wanted, stop))

        run_until_signalled(work, supervised=supervised)


def read_roles(text: str) -> list[str]:
    """The roles named in `api,worker`. Raises UsageError."""
    wanted = list(dict.fromkeys(role.strip() for role in text.split(",") if role.strip()))
    unknown = [role for role in wanted if role not in ROLES]
    if unknown or not wanted:
        raise UsageError(f"--roles takes {' and '.join(ROLES)}, separated by commas, not {text!r}")
    return wanted


async def supervise(settings: Settings, url: str, roles: list[str], stop: asyncio.Event) -> None:
    """A process for each role, restarted when it dies."""
    log.info("serving", roles=roles, api=f"http://{address(settings.host, settings.port)}")
    children = [role_child(role, settings, url) for role in roles]
    await Supervisor().run(children, stop=stop, stop_seconds=settings.stop_seconds + 5, on_event=log_event)


def role_child(role: str, settings: Settings, url: str) -> Child:
    """The command line of one role's process."""
    argv = [sys.executable, "-m", "lumbung", "serve", "--roles", role, "--supervised"]
    argv += ["--host", settings.host, "--port", str(settings.port)]
    env = {PREFIX + "DATABASE_URL": url, PREFIX + "DATA_DIR": str(settings.data_dir)}
    return Child(name=role, argv=argv, env=env)


def log_event(name: str, event: str, detail: dict[str, object]) -> None:
    log.info(event, process=name, **detail)
