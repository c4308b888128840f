"""What /docs says of the partner routes: written by hand, because they read their requests by hand."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.openapi.spec import (
    Example,
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
)

from lumbung.channels.catalogue import CATALOGUE
from lumbung.model import QUANTITY_MAX

Responses = dict[str, OpenAPIResponse | Reference]

_QUANTITY = Schema(type=OpenAPIType.INTEGER, minimum=0, maximum=QUANTITY_MAX)
_TEXT = Schema(type=OpenAPIType.STRING, min_length=1, max_length=255)

_UPDATE = Schema(
    type=OpenAPIType.OBJECT,
    required=["sku", "warehouse", "available_stock", "buffer_stock", "channel_stock"],
    properties={
        "sku": _TEXT,
        "sync_stock": Schema(
            description="All marketplaces show available - buffer. Also the strings true and false.",
            type=[OpenAPIType.BOOLEAN, OpenAPIType.STRING, OpenAPIType.NULL],
            default=False,
        ),
        "warehouse": _TEXT,
        "available_stock": _QUANTITY,
        "buffer_stock": _QUANTITY,
        "channel_stock": Schema(
            type=OpenAPIType.ARRAY,
            max_items=100,
            items=Schema(
                type=OpenAPIType.OBJECT,
                required=["code", "qty"],
                properties={"code": Schema(type=OpenAPIType.STRING, enum=sorted(CATALOGUE)), "qty": _QUANTITY},
            ),
        ),
        "as_of": Schema(
            description="When this was true at the merchant (an addition of Lumbung).",
            type=OpenAPIType.STRING,
            format=OpenAPIFormat.DATE_TIME,
        ),
    },
)
_UPDATE_EXAMPLE = {
    "sku": "sku1",
    "sync_stock": False,
    "warehouse": "default",
    "available_stock": 100,
    "buffer_stock": 0,
    "channel_stock": [{"code": "bklp", "qty": 30}, {"code": "blib", "qty": 20}],
}
_ACCEPTED = Schema(
    type=OpenAPIType.OBJECT,
    required=["transaction_code"],
    properties={"transaction_code": Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.UUID)},
)
_ERROR = Schema(
    type=OpenAPIType.OBJECT,
    required=["message", "reference", "errors"],
    properties={
        "message": Schema(type=OpenAPIType.STRING),
        "reference": Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.UUID),
        "errors": Schema(
            type=OpenAPIType.ARRAY,
            items=Schema(
                type=OpenAPIType.OBJECT,
                required=["field", "message"],
                properties={
                    "field": Schema(type=OpenAPIType.STRING),
                    "message": Schema(type=OpenAPIType.STRING),
                },
            ),
        ),
    },
)


def _header(name: str, description: str, *, required: bool) -> Parameter:
    return Parameter(
        name=name, param_in="header", description=description, required=required, schema=Schema(type=OpenAPIType.STRING)
    )


_SIGNED = [
    _header("partner-id", "Who is calling.", required=True),
    _header("secret", "base64(HMAC-SHA256(partner secret, request target + raw body)).", required=True),
    _header("timestamp", "Unix milliseconds; signed in front of the target when sent.", required=False),
]


def _answers(description: str, schema: Schema, *codes: int) -> Responses:
    answers: dict[str, OpenAPIResponse | Reference] = {
        "200": OpenAPIResponse(description=description, content={"application/json": OpenAPIMediaType(schema)})
    }
    meanings = {
        400: "Every problem of the request",
        401: "Not authenticated",
        403: "The partner is disabled",
        404: "SKU or warehouse unknown",
        409: "Idempotency-Key used with another body",
        413: "Body too large",
        503: "Try again after Retry-After seconds",
    }
    for code in codes:
        error = {"application/json": OpenAPIMediaType(_ERROR)}
        answers[str(code)] = OpenAPIResponse(description=meanings[code], content=error)
    return answers


@dataclass
class UpdateStocksOperation(Operation):
    def __post_init__(self) -> None:
        self.tags = ["Inventory"]
        self.summary = "Update Stocks"
        self.operation_id = "updateStocks"
        self.parameters = [
            *_SIGNED,
            _header("Idempotency-Key", "The same key and body within 24 h take effect once.", required=False),
        ]
        self.request_body = RequestBody(
            required=True,
            content={
                "application/json": OpenAPIMediaType(
                    schema=_UPDATE, examples={"seed": Example(summary="One SKU", value=_UPDATE_EXAMPLE)}
                )
            },
        )
        self.responses = _answers("Durably accepted", _ACCEPTED, 400, 401, 403, 404, 409, 413, 503)


def _query(name: str, schema: Schema, description: str) -> Parameter:
    return Parameter(name=name, param_in="query", required=False, schema=schema, description=description)


@dataclass
class HistoryOperation(Operation):
    def __post_init__(self) -> None:
        self.tags = ["Inventory"]
        self.summary = "Get Update History"
        self.operation_id = "getUpdateHistory"
        self.parameters = [
            *_SIGNED,
            _query(
                "updated_at",
                Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME),
                "Only records updated at or after it. Poll from the start of the last poll minus 60 s.",
            ),
            _query("limit", Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=1000, default=100), "Records a page."),
            _query("offset", Schema(type=OpenAPIType.INTEGER, minimum=0, default=0), "Records to skip."),
        ]
        self.responses = _answers("Newest first", _HISTORY, 400, 401, 403, 503)


def _object(**properties: Schema) -> Schema:
    return Schema(type=OpenAPIType.OBJECT, required=list(properties), properties=dict(properties))


_S, _I, _B = Schema(type=OpenAPIType.STRING), Schema(type=OpenAPIType.INTEGER), Schema(type=OpenAPIType.BOOLEAN)
_TIME = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME)
_TIME_OR_NULL = Schema(type=[OpenAPIType.STRING, OpenAPIType.NULL], format=OpenAPIFormat.DATE_TIME)
_ITEM = _object(
    id=_I,
    update_stock_history_id=_I,
    store_id=_I,
    store_name=_S,
    warehouse_id=_I,
    warehouse_name=_S,
    variant_id=_I,
    sku=_S,
    remote_variant=_S,
    row_number=_I,
    channel=_S,
    qty=_I,
    retrier_count=_I,
    progress=_B,
    client_reponse=_S,
    message=_S,
    success=_B,
    created_at=_TIME,
    updated_at=_TIME,
    finished_at=_TIME_OR_NULL,
)
_RECORD = _object(
    id=_I,
    tenant_id=_I,
    user_id=_I,
    transaction_code=Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.UUID),
    action_name=_S,
    upload_file_url=_S,
    total_sku=_I,
    created_at=_TIME,
    updated_at=_TIME,
    finished_at=_TIME_OR_NULL,
    update_stock_history_item=Schema(type=OpenAPIType.ARRAY, items=_ITEM),
)
_HISTORY = _object(
    data=Schema(type=OpenAPIType.ARRAY, items=_RECORD),
    total_record=_I,
    offset=_I,
    limit=_I,
    message=_S,
    reference=Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.UUID),
)
