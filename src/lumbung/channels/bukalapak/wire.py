"""What goes over the wire: the ids of a listing, the body we send, the answers we read.

Source: marketplaces.md section 5 [C]. The shape of a product that is read is assumed [M]: `variants`, each with `id`
and `stock`; a product that has an empty list of them has one SKU, and its `stock` is the product's own. A quantity that
is not found there counts as not read.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Annotated

import msgspec

from lumbung.channels.text import words
from lumbung.errors import BadRequest, Problem

REMOTE_VARIANT_CHARACTERS_MAX = 1000
REFUSALS_MAX = 10
VARIANTS_MAX = 1000

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
        code = "" if self.code is None else words(str(self.code))
        return ": ".join(part for part in (code, words(self.message or "")) if part)


class Meta(msgspec.Struct):
    http_status: int


class Envelope(msgspec.Struct):
    """What every answer of the API is wrapped in. With neither `meta` nor `errors` it is not Bukalapak's answer."""

    data: msgspec.Raw = msgspec.Raw(b"null")
    errors: list[Refusal] | None = None
    meta: Meta | None = None

    @property
    def words(self) -> str:
        """For a person; of very many refusals the first ones."""
        return words("; ".join(filter(None, (refusal.words for refusal in (self.errors or ())[:REFUSALS_MAX]))))

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
    product = _product(answer)
    if product is None or (product.id is not None and str(product.id) != product_id):
        return None
    return product


def stocks_of(product: Product, sku_ids: Collection[str]) -> dict[str, int]:
    """The units of those SKUs that the product shows any for. Its own `stock` is a SKU's only where there are surely no
    others: it may be the sum of all."""
    if product.variants:
        shown = {str(variant.id): variant.stock for variant in product.variants[:VARIANTS_MAX]}
        return {sku_id: units for sku_id in sku_ids if (units := shown.get(sku_id)) is not None}
    if product.variants is None or product.stock is None or len(set(sku_ids)) != 1:
        return {}
    return dict.fromkeys(sku_ids, product.stock)


def stock_echoed(answer: Envelope, variant: RemoteVariant) -> int | None:
    """The units that the answer to an update shows for its SKU: the answer is of the SKU, or of its product (assumed).
    None where it shows none."""
    shown = _product(answer)
    if shown is None:
        return None
    if shown.variants:
        return stocks_of(shown, [variant.sku_id]).get(variant.sku_id)
    return shown.stock if shown.id is None or str(shown.id) == variant.sku_id else None


def _product(answer: Envelope) -> Product | None:
    try:
        return msgspec.json.decode(answer.data, type=Product | None)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _expected() -> BadRequest:
    message = (
        "must be a product's id and a SKU's id with a slash between, such as 1lxw25g/4017523, or JSON: "
        '{"product_id": "1lxw25g", "sku_id": "4017523"}'
    )
    return BadRequest(f"remote_variant {message}", (Problem("remote_variant", message),))
