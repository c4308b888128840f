"""The root command: what is common to all, and which commands there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lumbung.cli import (
    application,
    bench,
    channel,
    demo,
    doctor,
    failures,
    history,
    key,
    listing,
    partner,
    reconcile,
    resync,
    sandbox,
    serve,
    settings,
    stock,
    store,
    tenant,
    torture,
    variant,
    warehouse,
)
from lumbung.cli.session import Root

app = typer.Typer(
    name="lumbung",
    help="A self-hosted hub that keeps every marketplace listing showing the right quantity.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def root(
    context: typer.Context,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the embedded database and the key file are (LUMBUNG_DATA_DIR).")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what happens in detail, on stderr.")] = False,
) -> None:
    context.obj = Root(data_dir, verbose)


app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("sandbox")(sandbox.sandbox)
app.command("torture")(torture.torture)
app.command("bench")(bench.bench)
app.add_typer(tenant.app, name="tenant")
app.add_typer(partner.app, name="partner")
app.add_typer(warehouse.app, name="warehouse")
app.add_typer(channel.app, name="channel")
app.add_typer(application.app, name="app")
app.add_typer(store.app, name="store")
app.add_typer(variant.app, name="variant")
app.add_typer(listing.app, name="listing")
app.command("history")(history.history)
app.add_typer(stock.app, name="stock")
app.add_typer(failures.app, name="failures")
app.add_typer(key.app, name="key")
app.command("resync")(resync.resync)
app.command("reconcile")(reconcile.reconcile)
app.command("doctor")(doctor.doctor)
app.command("settings")(settings.settings)
