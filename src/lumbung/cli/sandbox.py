"""`lumbung sandbox`: fake marketplaces to try things out with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from lumbung.cli import output
from lumbung.errors import ConfigurationError

PORT = 8700


def sandbox(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = PORT,
    write_log: Annotated[Path | None, typer.Option(help="File that gets a JSON line for every applied write.")] = None,
    call_log: Annotated[
        Path | None, typer.Option(help="File that gets a JSON line for every call, once it has ended.")
    ] = None,
    supervised: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run fake marketplaces until Ctrl+C."""
    from lumbung.cli.roles import run_until_signalled
    from lumbung.sandbox.errors import StartError
    from lumbung.sandbox.server import Sandbox

    async def until(stop: asyncio.Event) -> None:
        async with Sandbox.start(host=host, port=port, write_log=write_log, call_log=call_log) as running:
            if not supervised:
                output.note(f"Sandbox on {running.url}; Ctrl+C ends it")
                for channel, name, url in running.addresses():
                    output.note(f"  {channel}  {name} {url}")
            await stop.wait()

    try:
        run_until_signalled(until, supervised=supervised)
    except StartError as error:
        raise ConfigurationError(str(error)) from error
