"""What goes over the wire: the ids of a listing, the body we send, the answers we read.

Source: marketplaces.md section 5 [C]. The shape of a product that is read is assumed [M]: `variants`, each with `id`
and `stock`; a product without any has one SKU, and its `stock` is the product's own. A quantity that is not found
there counts as not read.
"""

from __future__ import annotations

import json
from typing import Annotated

import msgspec

from lumbung.channels.text import words
from lumbung.errors import BadRequest, Problem

REMOTE_VARIANT_CHARACTERS_MAX = 1000

# The pattern leaves nothing that would have to be escaped in a path, and no segment of dots only.
_Id = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]*\Z", max_length=100)]
_Quantity = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class RemoteVariant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A listing's ids on Bukalapak."""

    product_id: _Id
    sku_id: _Id

    def text(self) -> str:
        """The canonical JSON text: sorted keys, `", "` and `": "` between."""
        return json.dumps(msgspec.structs.asdict(self), sort_keys=True)


class SetStock(msgspec.Struct, omit_defaults=True):
    """The body of a stock update: the absolute number of units; `state` only where a store wants it."""

    stock: int
    state: str | None = None


class Refusal(msgspec.Struct):
    """One entry of `errors`. Which codes there are was never published."""

    code: int | str | None = None
    message: str | None = None

    @property
    def words(self) -> str:
        return ": ".join(part for part in ("" if self.code is None else str(self.code), self.message or "") if part)


class Meta(msgspec.Struct):
    http_status: int


class Envelope(msgspec.Struct):
    """What every answer of the API is wrapped in. With neither `meta` nor `errors` it is not Bukalapak's answer."""

    data: msgspec.Raw = msgspec.Raw(b"null")
    errors: list[Refusal] | None = None
    meta: Meta | None = None

    @property
    def words(self) -> str:
        return words("; ".join(filter(None, (refusal.words for refusal in self.errors or ()))))

    @property
    def has_data(self) -> bool:
        return bytes(self.data) != b"null"


class Variant(msgspec.Struct):
    """One SKU of a product that was read (assumed)."""

    id: int | str
    stock: _Quantity | None = None


class Product(msgspec.Struct):
    """The `data` of a product that was read (assumed)."""

    id: int | str | None = None
    stock: _Quantity | None = None
    variants: list[Variant] | None = None


def remote_variant(text: str) -> RemoteVariant:
    """From canonical text, any JSON of the same meaning, or `product/sku`. Raises BadRequest."""
    stripped = text.strip()
    if len(stripped) > REMOTE_VARIANT_CHARACTERS_MAX:
        raise _expected()
    try:
        if stripped.startswith("{"):
            return msgspec.json.decode(stripped, type=RemoteVariant)
        product_id, _, sku_id = stripped.partition("/")
        return msgspec.convert({"product_id": product_id, "sku_id": sku_id}, type=RemoteVariant)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise _expected() from None


def envelope(body: bytes) -> Envelope | None:
    """The answer's envelope; None when the body is not one."""
    try:
        read = msgspec.json.decode(body, type=Envelope)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return read if read.meta is not None or read.errors else None


def product_read(answer: Envelope, product_id: str) -> Product | None:
    """The product that an answer shows; None when it shows none, or another one."""
    try:
        product = msgspec.json.decode(answer.data, type=Product | None)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if product is None or (product.id is not None and str(product.id) != product_id):
        return None
    return product


def stock_of(product: Product, sku_id: str) -> int | None:
    """The units of one SKU; None when the product does not show any for it."""
    if not product.variants:
        return product.stock
    return next((variant.stock for variant in product.variants if str(variant.id) == sku_id), None)


def _expected() -> BadRequest:
    message = (
        "must be a product's id and a SKU's id with a slash between, such as 1lxw25g/4017523, or JSON: "
        '{"product_id": "1lxw25g", "sku_id": "4017523"}'
    )
    return BadRequest(f"remote_variant {message}", (Problem("remote_variant", message),))
