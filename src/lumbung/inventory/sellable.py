"""What each listing should show: the one place where quantities are decided. Pure; imports nothing that acts.

One warehouse contributes to a listing:

    sync on           sellable = available - buffer - reserved, never below 0
    sync off          the channel's figure; none if there is no figure
    nothing known     none

A listing shows the sum of what the warehouses that serve its store contribute; when none contributes, nothing is
sent ("no figure, no push").

Switching sync off: a channel that the merchant has not named keeps what its listings last showed, as a figure that is
*left* (`named` false). A left figure is lowered whenever sellable falls below it, never raised, and is replaced by the
first figure that the merchant names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lumbung.model import Figure, Lane, StockLevel


def sellable(level: StockLevel) -> int:
    return max(0, level.available - level.buffer - level.reserved)


def contribution(level: StockLevel | None, figure: Figure | None) -> int | None:
    """What one warehouse adds to a listing; None: nothing is known, so nothing is added and nothing is sent."""
    if level is None:
        return None
    if level.sync:
        return sellable(level)
    if figure is None:
        return None
    return figure.quantity if figure.named else min(figure.quantity, sellable(level))


def desired(contributions: Iterable[int | None]) -> int | None:
    """What a listing is to show; None when no warehouse contributes."""
    known = [quantity for quantity in contributions if quantity is not None]
    return sum(known) if known else None


def figures_after(
    before: StockLevel | None,
    after: StockLevel,
    figures: Mapping[str, Figure],
    named: Mapping[str, int],
    listed: Iterable[str],
) -> dict[str, Figure]:
    """The figures of one variant in one warehouse after an update.

    `figures`: those kept until now; `named`: the update's own; `listed`: channels on which the variant has a listing
    that the warehouse serves.
    """
    kept = dict(figures)
    if before is not None and before.sync and not after.sync:
        left = Figure(sellable(before), named=False)
        unnamed = {channel for channel, figure in kept.items() if not figure.named}
        kept.update({channel: left for channel in {*listed, *unnamed} if channel not in kept or channel in unnamed})
    kept.update({channel: Figure(quantity, named=True) for channel, quantity in named.items()})
    if after.sync:
        return kept
    return {channel: _lowered(figure, sellable(after)) for channel, figure in kept.items()}


def lane_of(quantity: int, delivered: int | None) -> Lane:
    """Zeros and falling quantities go first: showing stock that is gone is what oversells."""
    if delivered is not None and quantity == delivered:
        return Lane.REFRESH
    if quantity == 0 or (delivered is not None and quantity < delivered):
        return Lane.FALLING
    return Lane.RISING


def _lowered(figure: Figure, ceiling: int) -> Figure:
    if figure.named or figure.quantity <= ceiling:
        return figure
    return Figure(ceiling, named=False)
