"""`lumbung sandbox`: fake marketplaces to try things out with."""

from __future__ import annotations

from typing import Annotated

import typer

from lumbung.cli import output

PORT = 8700


def sandbox(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = PORT,
) -> None:
    """Run fake marketplaces until Ctrl+C."""
    from lumbung.sandbox.server import run

    run(host, port, ready=lambda url: output.note(f"Sandbox on {url} (Blibli below {url}/blib/v2); Ctrl+C ends it"))
