"""Every channel code that a partner may name in `channel_stock[].code`, whether or not there is a connector.

Source: marketplaces.md section 13. `confidence` is the tag there: C, seen in public code of the original; I, ours.
`shpee` (a misspelling in a front end) and `levs` (a brand) are seen in the wild and are no codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """`closed`: the marketplace, or its stock API, has shut; kept for history."""

    code: str
    name: str
    closed: bool
    confidence: Literal["C", "I"]


_ENTRIES = (
    CatalogueEntry("shpe", "Shopee", closed=False, confidence="C"),
    CatalogueEntry("bklp", "Bukalapak", closed=True, confidence="C"),  # physical goods ended in February 2025 [M]
    CatalogueEntry("blib", "Blibli", closed=False, confidence="C"),
    CatalogueEntry("tkpd", "Tokopedia", closed=True, confidence="C"),  # Open API ended 2025-09-30 [D]
    CatalogueEntry("lzda", "Lazada", closed=False, confidence="C"),
    CatalogueEntry("zlra", "Zalora", closed=False, confidence="C"),
    CatalogueEntry("tktk", "TikTok Shop", closed=False, confidence="C"),
    CatalogueEntry("jdid", "JD.ID", closed=True, confidence="C"),  # shut in March 2023 [M]
    CatalogueEntry("elvn", "Elevenia", closed=True, confidence="C"),  # [M]
    CatalogueEntry("zlgo", "Zilingo", closed=True, confidence="C"),  # [M]
    CatalogueEntry("srcl", "SIRCLO Store", closed=False, confidence="C"),
    CatalogueEntry("swi", "SWIFT", closed=False, confidence="C"),
    CatalogueEntry("shpf", "Shopify", closed=False, confidence="I"),
    CatalogueEntry("wooc", "WooCommerce", closed=False, confidence="I"),
    CatalogueEntry("mgnt", "Magento / Adobe Commerce", closed=False, confidence="I"),
    CatalogueEntry("amzn", "Amazon", closed=False, confidence="I"),
    CatalogueEntry("aklk", "Akulaku", closed=False, confidence="I"),
)

CATALOGUE: Mapping[str, CatalogueEntry] = MappingProxyType({entry.code: entry for entry in _ENTRIES})
