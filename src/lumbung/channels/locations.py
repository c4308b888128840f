"""Units per location, for channels that know locations."""

from __future__ import annotations

from collections.abc import Mapping

from lumbung.channels.base import Misconfigured, Push

UNPLACED = Misconfigured(
    "Some warehouses that serve the store have a location and others have none: give each one with `lumbung store link`"
)


def is_unplaced(push: Push) -> bool:
    """Whether some of its units stand at no location, beside others that do: it must not be sent."""
    return "" in push.locations


def spread(push: Push) -> Mapping[str, int]:
    """The push's locations so that they add up to its quantity; empty when it has none.

    They add up already, but for a quantity that was raised to what the marketplace has reserved: what it is more goes
    to the location that has the most, the first by name of equals. Raises ValueError when they are more than the
    quantity (a bug of the caller's).
    """
    if not push.locations:
        return {}
    more = push.quantity - sum(push.locations.values())
    if more < 0:
        raise ValueError(f"listing {push.listing_id}: its locations are {-more} more than its quantity")
    most = min(push.locations, key=lambda location: (-push.locations[location], location))
    return {location: units + (more if location == most else 0) for location, units in sorted(push.locations.items())}
