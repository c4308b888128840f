"""`lumbung reconcile`: have marketplaces read back, and correct what would oversell.

Only the worker that holds a store's lease calls its marketplace. So the command marks listings as due to be read, wakes
the workers, and watches until all are read. Listings that an earlier command has left due to be read are among them;
what was only to be looked at is then corrected too.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lumbung.channels import registry
from lumbung.channels.catalogue import CATALOGUE
from lumbung.cli import audit, chosen, output, session
from lumbung.cli.chosen import Chosen
from lumbung.cli.resync import mark
from lumbung.db import stores, upkeep, wake
from lumbung.db.stores import StoreRow
from lumbung.db.upkeep import Marked
from lumbung.errors import UsageError
from lumbung.model import DueFor

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

COLUMNS = {
    "found": "FOUND",
    "store": "STORE",
    "sku": "SKU",
    "remote_variant": "REMOTE VARIANT",
    "quantity_due": "SHOULD SHOW",
    "quantity_observed": "SHOWS",
    "why": "WHY",
}
T = TypeVar("T")

KINDS = ("equal", "above", "below", "unreadable", "skipped", "unread")
BELOW = "Units were probably sold since"
NO_WORKER = "no worker runs; start one with `lumbung serve`"
PROGRESS_SECONDS = 5.0  # between two lines that say how far it is, where no bar does


@dataclass(slots=True)
class Findings:
    """`rows`: a marked listing each; `counts`: of KINDS, listings that were not marked among the skipped.

    `complete`: nothing was left out or unread.
    """

    marked: list[Marked]
    notes: list[str]
    complete: bool = True
    rows: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    raised: int = 0


def reconcile(
    context: typer.Context,
    store: chosen.StoreOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read only; correct nothing.")] = False,
    correct_down: Annotated[
        bool,
        typer.Option("--correct-down", help="Tell those again that show less than they should: it undoes sales!"),
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Ask the workers, and do not wait for them.")] = False,
    tenant: session.TenantOption = None,
    as_json: session.JsonOption = False,
) -> None:
    """Read back what live stores show, and correct what would oversell.

    What shows more than it should is told again. What shows less is reported: units were probably sold since. It is a
    worker that reads (`lumbung serve`).

    Exit status 0: everything was read, also when a --dry-run found what would oversell (with --no-wait: everything was
    asked for). 1: something was not read, and stderr says what and why: a store that is paused, observed, or on a
    channel that cannot be read back; a listing that is parked, in doubt, or still to be told a newer figure; a
    marketplace that does not answer; no worker.
    """
    if correct_down and (dry_run or no_wait):
        raise UsageError("--correct-down goes neither with --dry-run nor with --no-wait")
    if dry_run and no_wait:
        raise UsageError("--dry-run does not go with --no-wait: nobody would be told what was read")
    due_for = DueFor.OBSERVE if dry_run else DueFor.RECONCILE
    findings = session.run(context, partial(_reconcile, tenant, store, due_for, correct_down, no_wait))
    if no_wait and as_json:
        output.document({"asked": len(findings.marked), "skipped": findings.counts["skipped"]})
    elif no_wait:
        output.say(
            f"Workers were asked to read {_listings(len(findings.marked))} back; `lumbung failures list` shows trouble"
        )
    elif as_json:
        output.document({"counts": {kind: findings.counts[kind] for kind in KINDS}, "listings": findings.rows})
    else:
        _show(findings, dry_run=dry_run)
    if dry_run and (above := findings.counts["above"]):
        output.note(
            f"{_listings(above)} would oversell, and this dry run has corrected nothing: run it without --dry-run"
        )
    for note in findings.notes:
        output.note(note)
    if not findings.complete:
        raise typer.Exit(1)


def _show(findings: Findings, *, dry_run: bool) -> None:
    different = [row for row in findings.rows if row["found"] != "equal"]
    if different:
        output.listing(different, COLUMNS, as_json=False)
    counts = findings.counts
    corrected = "oversells" if dry_run else "oversells, corrected"
    told = f", {findings.raised} told again" if findings.raised else ""
    output.say(
        f"{counts['equal']} equal, {counts['above']} above ({corrected}), {counts['below']} below "
        f"(probably sold{told}), {counts['unreadable']} unreadable, {counts['skipped']} skipped"
        + (f", {counts['unread']} not read yet" if counts["unread"] else "")
    )


def _listings(count: int) -> str:
    return f"{count} listing{'' if count == 1 else 's'}"


async def _reconcile(
    tenant: str | None, store: str | None, due_for: DueFor, correct_down: bool, no_wait: bool, hub: Installation
) -> Findings:
    async with hub.pool.connection() as connection:
        which = await chosen.find_chosen(connection, tenant, store)
        problems = {row.id: _unreadable(row) for row in which.stores}
        if which.store is not None and (problem := problems[which.store.id]) is not None:
            raise UsageError(problem)
        readable = [row.id for row in which.stores if problems[row.id] is None]
        others = await upkeep.count_others(connection, tenant_id=which.tenant_id, store_ids=readable)
        workers = await upkeep.workers_live(connection)
    notes = [f"Left out. {problem}" for problem in problems.values() if problem is not None]
    complete = not notes
    findings = Findings(await mark(hub, which, readable, due_for, "reconcile"), notes)
    findings.counts["skipped"] = sum(others.values())
    if any(others.values()):
        complete = complete and not others["busy"] and not others["parked"]
        notes += _why_skipped(others)
    if findings.marked and not workers:
        wait = "" if no_wait else f" (waiting {hub.settings.reconcile_stall_seconds:g} s for it)"
        output.note(f"{NO_WORKER[0].upper()}{NO_WORKER[1:]}{wait}")
    if no_wait:
        findings.complete = complete
        return findings
    unread = await _wait(hub, which, findings.marked)
    if unread:
        notes.append(f"{_listings(len(unread))} not read yet: {await _why_unread(hub, which, readable)}")
    await _read(hub, which.tenant_id, findings)
    found = Counter(row["found"] for row in findings.rows)
    if found["skipped"]:
        notes.append(f"{_listings(found['skipped'])} got a newer update: reconcile again when it is delivered")
    if found["unreadable"]:
        notes.append(f"{_listings(found['unreadable'])} could not be read: the column WHY has the marketplace's words")
    complete = complete and not (unread or found["unread"] or found["skipped"] or found["unreadable"])
    if correct_down:
        await _correct_down(hub, which, findings)
    findings.complete = complete
    return findings


def _why_skipped(others: Mapping[str, int]) -> list[str]:
    notes = [
        f"Skipped: {others['busy']} due or waiting, {others['parked']} parked, {others['without']} without a figure"
    ]
    if others["busy"]:
        notes.append("What is due or waits is told its newest figure first: reconcile again when that is done")
    if others["parked"]:
        notes.append(
            "`lumbung failures list` shows why they are parked, `lumbung failures retry --all` tries them again"
        )
    return notes


def _unreadable(store: StoreRow) -> str | None:
    """Why a store is not read back."""
    channel = registry.find(store.channel)
    if channel is None or not channel.manifest.reads_back:
        return f"Store {store.name!r} is on {CATALOGUE[store.channel].name}, which cannot be read back"
    return chosen.not_live(store)


async def _wait(hub: Installation, which: Chosen, marked: Sequence[Marked]) -> set[int]:
    """Until all are read, nothing was read for a while, or the operator ends it; returns those that are not read."""
    poll_seconds, quiet_seconds, silent_seconds = hub.settings.reconcile_poll_seconds, 0.0, 0.0
    unread = {listing.listing_id for listing in marked}
    with output.progress("Read back", len(unread)) as advance:
        try:
            while unread and quiet_seconds < hub.settings.reconcile_stall_seconds:
                await pause(poll_seconds)
                left = await _still_unread(hub, which.tenant_id, sorted(unread))
                quiet_seconds = quiet_seconds + poll_seconds if left == unread else 0.0
                advance(len(unread) - len(left))
                unread = left
                silent_seconds += poll_seconds
                if unread and silent_seconds >= PROGRESS_SECONDS and not sys.stderr.isatty():
                    silent_seconds = 0.0
                    output.note(f"{len(marked) - len(unread)} of {_listings(len(marked))} read so far")
        except asyncio.CancelledError:  # ctrl-C: what is known by now is told
            output.note("Interrupted: workers read the rest all the same")
    return unread


def _chunks(rows: Sequence[T], size: int) -> list[Sequence[T]]:
    return [rows[at : at + size] for at in range(0, len(rows), size)]


async def pause(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def _still_unread(hub: Installation, tenant_id: int, ids: Sequence[int]) -> set[int]:
    left: set[int] = set()
    async with hub.pool.connection() as connection:
        for chunk in _chunks(ids, hub.settings.chunk_rows_max):
            left |= await upkeep.still_unread(connection, tenant_id=tenant_id, listing_ids=chunk)
    return left


async def _why_unread(hub: Installation, which: Chosen, store_ids: list[int]) -> str:
    async with hub.pool.connection() as connection:
        if not await upkeep.workers_live(connection):
            return NO_WORKER
        now = [row for row in await stores.unretired_stores(connection) if row.id in store_ids]
        troubles = await upkeep.store_troubles(connection, tenant_id=which.tenant_id, store_ids=store_ids)
    problems = [problem for row in now if (problem := chosen.not_live(row)) is not None]
    problems += [f"store {name!r}: {trouble}" for name, trouble in troubles]
    if problems:
        return (
            "; ".join(problems) + ". They stay due: they are read when that is mended; reconcile again for the result"
        )
    return "workers go on as fast as the marketplace allows; reconcile again for the result"


async def _read(hub: Installation, tenant_id: int, findings: Findings) -> None:
    async with hub.pool.connection() as connection:
        for chunk in _chunks(findings.marked, hub.settings.chunk_rows_max):
            rows = await upkeep.read_observed(connection, tenant_id=tenant_id, marked=chunk)
            findings.rows += [_row(row) for row in rows]
    findings.counts.update(row["found"] for row in findings.rows)


def _row(row: upkeep.Row) -> dict[str, Any]:
    found, why = _found(row)
    names = ("listing_id", "store", "sku", "remote_variant", "quantity_due")
    shown = row["quantity_observed"] if row["observed"] else None
    return {"found": found, **{name: row[name] for name in names}, "quantity_observed": shown, "why": why}


def _found(row: upkeep.Row) -> tuple[str, str | None]:
    """One of KINDS, and what there is to say about it."""
    if row["unread"]:
        return "unread", None
    if row["changed"]:
        return "skipped", "A newer update came meanwhile"
    if not row["observed"] or row["quantity_observed"] is None:
        return "unreadable", row["last_message"]
    if row["quantity_observed"] > row["quantity_due"]:
        return "above", "It would oversell"
    if row["quantity_observed"] < row["quantity_due"]:
        return "below", BELOW
    return "equal", None


async def _correct_down(hub: Installation, which: Chosen, findings: Findings) -> None:
    below = {row["listing_id"] for row in findings.rows if row["found"] == "below"}
    told: list[int] = []
    for chunk in _chunks([one for one in findings.marked if one.listing_id in below], hub.settings.chunk_rows_max):
        told += await session.retried(partial(_correct_chunk, hub, which, chunk))
    findings.raised = len(told)
    if told:
        await wake.try_notify(hub.pool, set(told))


async def _correct_chunk(hub: Installation, which: Chosen, chunk: Sequence[Marked]) -> list[int]:
    async with session.locking(hub.pool, hub.settings) as connection:
        told = await upkeep.correct_down(connection, tenant_id=which.tenant_id, marked=chunk)
        ids = [listing.listing_id for listing in chunk]
        await audit.write(connection, which.tenant_id, "reconcile.correct_down", which.subject, listings=ids)
    return told
