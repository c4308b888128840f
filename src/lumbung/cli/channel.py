"""`lumbung channel`: the marketplaces that there are codes for, and what their connectors need and can do."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lumbung.channels import registry
from lumbung.channels.base import CredentialField, Manifest
from lumbung.channels.catalogue import CATALOGUE, CatalogueEntry
from lumbung.cli import credentials, output, session

app = typer.Typer(help="The marketplaces that there are codes for.", no_args_is_help=True)

COLUMNS = {"code": "CODE", "name": "NAME", "connector": "CONNECTOR", "closed": "CLOSED", "batch": "A CALL TAKES"}
FIELDS = {"name": "FIELD", "file": "IN THE FILE OF", "required": "REQUIRED", "secret": "SECRET", "help": "WHAT IT IS"}


@app.command("list")
def list_(as_json: session.JsonOption = False) -> None:
    """Show every code that a partner may name; stores can be added where there is a connector."""
    output.listing([_entry(entry) for entry in CATALOGUE.values()], COLUMNS, as_json=as_json)


@app.command("show")
def show(
    code: Annotated[str, typer.Argument(metavar="CODE", help="Such as shpe.")], as_json: session.JsonOption = False
) -> None:
    """Show what a connector needs and can do: limits, and the fields of the credentials files."""
    manifest = credentials.connector(code).manifest
    fields = [_field(entry) for entry in manifest.credentials]
    if as_json:
        output.document({**_facts(manifest), "credentials": fields})
        return
    for name, value in _facts(manifest).items():
        output.say(f"{name.replace('_', ' '):32} {output.cell(value)}")
    output.say("")
    output.listing(fields, FIELDS, as_json=False)


def _entry(entry: CatalogueEntry) -> dict[str, Any]:
    channel = registry.find(entry.code)
    return {
        "code": entry.code,
        "name": entry.name,
        "connector": channel is not None,
        "closed": entry.closed,
        "batch": _batch(channel.manifest) if channel is not None else None,
    }


def _batch(manifest: Manifest) -> str:
    return manifest.batch_of if manifest.batch_max == 1 else f"up to {manifest.batch_max} of {manifest.batch_of}"


def _facts(manifest: Manifest) -> dict[str, Any]:
    together = manifest.application_pacing
    return {
        "code": manifest.code,
        "name": manifest.name,
        "closed": manifest.closed,
        "hosts": ", ".join(manifest.hosts),
        "a_call_takes": _batch(manifest),
        "calls_at_once_per_store": manifest.in_flight_max,
        "calls_per_second_per_store": manifest.pacing.calls_per_second,
        "calls_per_second_per_application": together.calls_per_second if together is not None else None,
        "call_timeout_seconds": manifest.call_timeout_seconds,
        "quiesce_seconds": manifest.quiesce_seconds,
        "knows_locations": manifest.location_aware,
        "reads_back": manifest.reads_back,
        "merchant_must_authorise": manifest.authorizes,
        "quantity_means": manifest.quantity_means,
    }


def _field(entry: CredentialField) -> dict[str, Any]:
    return {
        "name": entry.name,
        "file": "the application" if entry.application else "the store",
        "required": entry.required,
        "secret": entry.secret,
        "help": entry.help,
    }
