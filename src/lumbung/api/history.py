"""GET /v1/partner/inventory/history"""

from __future__ import annotations

import msgspec
from litestar import Response, get

from lumbung.api.context import context_of
from lumbung.api.documents import HistoryOperation
from lumbung.api.errors import AnyRequest
from lumbung.api.inbound import signed_request
from lumbung.api.reference import reference_of
from lumbung.api.validation import read_page
from lumbung.api.wire import history_answer
from lumbung.db import history as db


@get("/v1/partner/inventory/history", operation_class=HistoryOperation)
async def history(request: AnyRequest) -> Response[bytes]:
    context = context_of(request.app)
    settings = context.settings
    async with context.bodies.reading(request) as body:
        partner = await context.partners.authenticate(signed_request(request, body, settings.public_path_prefix))
    page = read_page(
        request.scope["query_string"],
        limit_default=settings.history_limit_default,
        limit_max=settings.history_limit_max,
    )
    async with context.pool.connection() as connection:
        records, total = await db.page(
            connection,
            tenant_id=partner.tenant_id,
            updated_at=page.updated_at,
            limit=page.limit,
            offset=page.offset,
            items_max=settings.history_items_max,
        )
    answer = history_answer(records, total, offset=page.offset, limit=page.limit, reference=reference_of(request.scope))
    return Response(msgspec.json.encode(answer), media_type="application/json")
