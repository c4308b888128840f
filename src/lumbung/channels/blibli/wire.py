"""What goes over the wire: the ids of a listing, the body we send, the answers we read.

Source: marketplaces.md section 4 [C]. The shape of `value` when a product is read is not published: `Product` lists
the places where a quantity is looked for, and a quantity that is found in none of them counts as not read.
"""

from __future__ import annotations

import json
from typing import Annotated

import msgspec

from lumbung.channels.text import words
from lumbung.errors import BadRequest, Problem

REMOTE_VARIANT_CHARACTERS_MAX = 1000

# Blibli gives out these ids (TOQ-15126-00451-00001, PP-3001234). The pattern leaves nothing that would have to be
# escaped in a path, which is also signed, and no segment of dots only.
_Id = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]*\Z", max_length=100)]
_Quantity = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class RemoteVariant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A listing's ids on Blibli."""

    blibli_sku: _Id
    pickup_point_code: _Id | None = None

    def text(self) -> str:
        """The canonical JSON text: sorted keys, absent ones left out, `", "` and `": "` between."""
        return json.dumps({key: value for key, value in msgspec.structs.asdict(self).items() if value}, sort_keys=True)


class SetStock(msgspec.Struct, rename="camel"):
    """The body of a stock update: the absolute number of units."""

    available_stock: int


class Envelope(msgspec.Struct, rename="camel"):
    """What every answer of Blibli is wrapped in. Without a boolean `success` it is not Blibli's answer."""

    success: bool
    error_code: str | int | None = None
    error_message: str | None = None
    value: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def code(self) -> str:
        return "" if self.error_code is None else words(str(self.error_code))

    @property
    def message(self) -> str:
        return words(self.error_message or "")


class NestedStock(msgspec.Struct, rename="camel"):
    """Assumed second place of a quantity: `value.stock.availableStock`."""

    available_stock: _Quantity | None = None


class Product(msgspec.Struct, rename="camel"):
    """The `value` of a product that was read: `availableStock`, or `stock` as a number or an object (assumed)."""

    blibli_sku: str | None = None
    available_stock: _Quantity | None = None
    stock: _Quantity | NestedStock | None = None


def remote_variant(text: str) -> RemoteVariant:
    """From canonical text, any JSON of the same meaning, or a bare Blibli SKU. Raises BadRequest."""
    stripped = text.strip()
    if len(stripped) > REMOTE_VARIANT_CHARACTERS_MAX:
        raise _expected()
    try:
        if stripped.startswith("{"):
            return msgspec.json.decode(stripped, type=RemoteVariant)
        return msgspec.convert({"blibli_sku": stripped}, type=RemoteVariant)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise _expected() from None


def envelope(body: bytes) -> Envelope | None:
    """The answer's envelope; None when the body is not one."""
    try:
        return msgspec.json.decode(body, type=Envelope)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def stock_read(answer: Envelope, blibli_sku: str) -> int | None:
    """The units that a product's answer shows; None when there are none to be found or it is another product's."""
    try:
        product = msgspec.json.decode(answer.value, type=Product | None)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if product is None or product.blibli_sku not in {None, blibli_sku}:
        return None
    if product.available_stock is not None:
        return product.available_stock
    return product.stock.available_stock if isinstance(product.stock, NestedStock) else product.stock


def _expected() -> BadRequest:
    message = (
        "must be a Blibli SKU such as TOQ-15126-00451-00001, or JSON: "
        '{"blibli_sku": "TOQ-15126-00451-00001"}, with "pickup_point_code" if the store has several'
    )
    return BadRequest(f"remote_variant {message}", (Problem("remote_variant", message),))
