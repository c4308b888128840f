"""What goes over the wire: the ids of a listing, the bodies we send, the answers we read.

Source: marketplaces.md sections 1.1, 1.3, 1.4 and 1.5. Numbers are read from strings too: Shopee's documentation has
both for the same field.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, TypeVar

import msgspec

from lumbung.channels.text import words
from lumbung.errors import BadRequest, Problem

REMOTE_VARIANT_CHARACTERS_MAX = 200
ID_MAX = 2**63 - 1

_Id = Annotated[int, msgspec.Meta(ge=1, le=ID_MAX)]
_VariationId = Annotated[int, msgspec.Meta(ge=0, le=ID_MAX)]
_Quantity = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_PLAIN = re.compile(r"([1-9][0-9]*)(?:/(0|[1-9][0-9]*))?", re.ASCII)


class RemoteVariant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A listing's ids on Shopee. `variation_id` 0: the item has no variations."""

    item_id: _Id
    variation_id: _VariationId = 0

    def text(self) -> str:
        """The canonical JSON text: sorted keys, `", "` and `": "` between."""
        return json.dumps(msgspec.structs.asdict(self), sort_keys=True)

    @property
    def batch_key(self) -> str:
        """One stock update is of one item."""
        return f"item {self.item_id}"

    @property
    def read_key(self) -> str:
        """Items without variations are read together, variations by item."""
        return self.batch_key if self.variation_id else "items"


class _WithModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same ids under the names of Shopee's second API."""

    item_id: _Id
    model_id: _VariationId


def remote_variant(text: str) -> RemoteVariant:
    """From canonical text, JSON that says `model_id`, or a pasted `12346` or `12346/55`. Raises BadRequest."""
    stripped = text.strip()
    if len(stripped) > REMOTE_VARIANT_CHARACTERS_MAX:
        raise _expected()
    try:
        plain = _PLAIN.fullmatch(stripped)
        if plain is not None:
            ids = {"item_id": int(plain[1]), "variation_id": int(plain[2] or 0)}
            return msgspec.convert(ids, type=RemoteVariant)
        given = msgspec.json.decode(stripped)
        if isinstance(given, dict) and "model_id" in given:
            model = msgspec.convert(given, type=_WithModel)
            return RemoteVariant(model.item_id, model.model_id)
        return msgspec.convert(given, type=RemoteVariant)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise _expected() from None


def _expected() -> BadRequest:
    message = (
        'must be a Shopee item and variation such as 12346/55, or JSON: {"item_id": 12346, "variation_id": 55}; '
        "variation_id is 0, or left out, for an item without variations"
    )
    return BadRequest(f"remote_variant {message}", (Problem("remote_variant", message),))


# --- What we send ---


class SellerStock(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Units of the seller's own stock, absolute; `location_id` only where stock is kept per location."""

    location_id: str = ""
    stock: int


class ModelStock(msgspec.Struct, frozen=True):
    """`model_id` 0: the item has no variations."""

    model_id: int
    seller_stock: tuple[SellerStock, ...]


class UpdateStock(msgspec.Struct, frozen=True):
    """The body of update_stock: one item."""

    item_id: int
    stock_list: tuple[ModelStock, ...]


class GetToken(msgspec.Struct, frozen=True):
    """The body that trades a code for the first pair of tokens."""

    code: str
    partner_id: int
    shop_id: int

    def __repr__(self) -> str:
        return f"GetToken(shop_id={self.shop_id})"


class RefreshToken(msgspec.Struct, frozen=True):
    """The body that trades a pair of tokens for a new one."""

    refresh_token: str
    partner_id: int
    shop_id: int

    def __repr__(self) -> str:
        return f"RefreshToken(shop_id={self.shop_id})"


# --- What we read ---


class Envelope(msgspec.Struct, frozen=True):
    """What every answer is wrapped in. `error` "" is success; without `error` it is not Shopee's answer."""

    error: str
    message: str | None = None
    response: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def code(self) -> str:
        return words(self.error)

    @property
    def said(self) -> str:
        """The message for people."""
        return words(self.message or "")


class Lists(msgspec.Struct, frozen=True):
    """The `response` of update_stock: an entry for each model and location that was taken, one for each refusal."""

    success_list: list[msgspec.Raw] | None = None
    failure_list: list[msgspec.Raw] | None = None


class Taken(msgspec.Struct, frozen=True):
    """An entry of success_list."""

    model_id: int = 0
    location_id: str | None = None
    stock: _Quantity | None = None


class Failed(msgspec.Struct, frozen=True):
    """An entry of failure_list."""

    model_id: int = 0
    failed_reason: str | None = None


class StockAt(msgspec.Struct, frozen=True):
    """The seller's units at a location that is named, or at the only one."""

    stock: _Quantity
    location_id: str | None = None


class StockInfo(msgspec.Struct, frozen=True):
    """`shopee_stock` (fulfilled by Shopee) stands here too; it is not ours to write and is not counted."""

    seller_stock: list[StockAt] | None = None


class Item(msgspec.Struct, frozen=True):
    """An entry of get_item_base_info."""

    item_id: int
    item_status: str = ""
    has_model: bool = False
    stock_info_v2: StockInfo | None = None


class Items(msgspec.Struct, frozen=True):
    """The `response` of get_item_base_info."""

    item_list: list[msgspec.Raw] | None = None


class Model(msgspec.Struct, frozen=True):
    """An entry of get_model_list."""

    model_id: int
    stock_info_v2: StockInfo | None = None


class Models(msgspec.Struct, frozen=True):
    """The `response` of get_model_list."""

    model: list[msgspec.Raw] | None = None


class Pair(msgspec.Struct, frozen=True):
    """What both token calls answer, without a `response` around it. All but the two tokens may be anything, or missing:
    a pair that has come must not be lost for want of a number."""

    access_token: Annotated[str, msgspec.Meta(min_length=1)]
    refresh_token: Annotated[str, msgspec.Meta(min_length=1)]
    error: msgspec.Raw = msgspec.Raw(b"null")
    expire_in: msgspec.Raw = msgspec.Raw(b"null")
    shop_id: msgspec.Raw = msgspec.Raw(b"null")

    def __repr__(self) -> str:
        return f"Pair(expire_in={bytes(self.expire_in[:100])!r})"

    @property
    def refused(self) -> bool:
        """Whether it names an error: anything that is not nothing."""
        return bytes(self.error).strip() not in {b"null", b'""', b"0", b"false", b"{}", b"[]"}

    @property
    def whose(self) -> int | None:
        """The shop that it is for; None where none is named."""
        shop_id = decode(self.shop_id, int)
        return shop_id if shop_id is not None and shop_id > 0 else None


T = TypeVar("T")


def decode(body: bytes | msgspec.Raw, kind: type[T]) -> T | None:
    """None when it is not that."""
    try:
        return msgspec.json.decode(body, type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def envelope(body: bytes) -> Envelope | None:
    """The answer's envelope; None when the body is not one."""
    try:
        return msgspec.json.decode(body, type=Envelope)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def lists(answer: Envelope) -> Lists | None:
    """The lists of update_stock; empty where there are none; None when what stands there cannot be read."""
    if bytes(answer.response) in {b"null", b'""', b"[]"}:
        return Lists()
    return decode(answer.response, Lists)
