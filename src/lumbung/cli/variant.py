"""`lumbung variant`: the catalogue of a tenant."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lumbung.cli import bulk, find, names, output, session
from lumbung.cli.bulk import Kind, Report, Wrong
from lumbung.db import catalogue, tenants
from lumbung.db.query import Connection
from lumbung.db.tenants import Row

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

app = typer.Typer(help="The catalogue.", no_args_is_help=True)

COLUMNS = ("sku", "name")
UNKNOWN_COLUMNS = {"sku": "SKU", "times": "TIMES", "first_at": "FIRST", "last_at": "LAST"}
NAME_CHARACTERS_MAX = 1000

Variant = tuple[str, str]

GoodRowsOption = Annotated[
    bool,
    typer.Option(
        "--good-rows/--all-or-nothing", help="Import the rows that are right; by default none when one is wrong."
    ),
]


@app.callback()
def variant() -> None:
    """The catalogue: what a tenant sells."""


@app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Columns: sku, name.")],
    tenant: session.TenantOption = None,
    good_rows: GoodRowsOption = False,
) -> None:
    """Add variants, and rename those that are there."""
    report = session.run(context, partial(_import, file, tenant, good_rows))
    counts = report.counts
    output.say(f"Imported {counts.total()} variants: {counts['added']} new, {counts['kept']} there already")
    report.refuse_skipped(file)


async def _import(file: Path, tenant: str | None, good_rows: bool, hub: Installation) -> Report:
    async with hub.pool.connection() as connection:
        tenant_id = (await find.tenant(connection, tenant)).id

    async def write(connection: Connection, variants: list[Variant]) -> Counter[str]:
        added = await catalogue.put_variants(connection, tenant_id, variants)
        return Counter(added=added, kept=len(variants) - added)

    kind = Kind(
        columns=COLUMNS,
        action="variant.import",
        tenant_id=tenant_id,
        check=_check,
        identity=_sku,
        twice="the same sku",
        write=write,
        after=_nothing,
    )
    return await bulk.import_file(hub, kind, file, good_rows=good_rows)


@app.command("unknown")
def unknown(
    context: typer.Context,
    tenant: session.TenantOption = None,
    limit: Annotated[int, typer.Option(min=1, help="SKUs.")] = 100,
    as_json: session.JsonOption = False,
) -> None:
    """Show the SKUs that partners sent and the catalogue did not have, the most frequent first."""
    rows = session.run(context, partial(_unknown, tenant, limit))
    output.listing(rows, UNKNOWN_COLUMNS, as_json=as_json)


async def _unknown(tenant: str | None, limit: int, hub: Installation) -> list[Row]:
    async with hub.pool.connection() as connection:
        tenant_id = (await find.tenant(connection, tenant)).id
        return await tenants.unknown_skus(connection, tenant_id=tenant_id, limit=limit)


async def _check(connection: Connection, rows: list[tuple[str, ...]]) -> list[Variant | Wrong]:
    return [_variant(sku, name) for sku, name in rows]


def _variant(sku: str, name: str) -> Variant | Wrong:
    problem = names.problem_of(sku)
    if problem is None and sku != sku.strip():
        problem = "must not begin or end with a space"  # no partner would ever send it
    if problem is not None:
        return Wrong(f"sku {problem}")
    name = name.strip()
    problem = names.problem_of(name, NAME_CHARACTERS_MAX) if name else None
    return (sku, name) if problem is None else Wrong(f"name {problem}")


def _sku(variant: Variant) -> str:
    return variant[0]


async def _nothing(variants: list[Variant]) -> None:
    """No listing shows anything else because of a variant's name."""
