"""What marketplaces say of units that are spoken for, where they say it in words only.

Their texts are not published; these are the ways in which English and Indonesian would put it [I]. A wrong number would
offer what is not there, so none is taken that is not the only one that can be meant.
"""

from __future__ import annotations

import re

# Looked for in one text: that it is about stock, and that some of it is spoken for.
RESERVED = re.compile(r"\A(?=.*(?:stock|stok|quantity))(?=.*(?:reserved|booked|dipesan))", re.IGNORECASE)

# Not the 1 of "1.500", which is a thousand and more, or a fraction; and not the end of a SKU.
_NUMBER = r"(?<![\w.,-])(\d{1,9})\b(?![.,]\d)"
_LEAST = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b(?:less than|lower than|fewer than|below|at least|minim(?:um|al)(?: of| is|:)?|kurang dari) {_NUMBER}",
        rf"{_NUMBER}(?: units?| pcs| items?)?(?: is| are)?(?: already)? (?:reserved|booked|dipesan)\b",
        rf"\b(?:reserved|booked|dipesan)(?: stock| quantity)?(?: is| of|:)? {_NUMBER}",
    )
)
_OTHER_MEASURES = re.compile(r"price|harga|weight|berat", re.IGNORECASE)


def least_units(words: str) -> int | None:
    """The fewest units that would be taken, at least 1; None when the words name none, or more than one."""
    found = {int(number) for pattern in _LEAST for number in pattern.findall(words)}
    if len(found) != 1 or _OTHER_MEASURES.search(words):
        return None
    return found.pop() or None
