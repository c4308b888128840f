"""POST /v1/partner/inventory/updatestocks"""

from __future__ import annotations

import hashlib
from uuid import uuid4

import msgspec
from litestar import Response, post

from lumbung.api.context import ApiContext, context_of
from lumbung.api.documents import UpdateStocksOperation
from lumbung.api.errors import AnyRequest
from lumbung.api.inbound import signed_request
from lumbung.api.validation import Limits, key_problems, latest_as_of, read_update
from lumbung.api.wire import TransactionAnswer
from lumbung.model import Idempotency, Submission


@post("/v1/partner/inventory/updatestocks", status_code=200, operation_class=UpdateStocksOperation)
async def update_stocks(request: AnyRequest) -> Response[bytes]:
    context = context_of(request.app)
    submission = await _submission(request, context)  # the body may be large, and the update may have to wait
    receipt = await context.commits.submit(submission)
    answer = TransactionAnswer(str(receipt.transaction_code))
    return Response(msgspec.json.encode(answer), media_type="application/json")


async def _submission(request: AnyRequest, context: ApiContext) -> Submission:
    settings = context.settings
    async with context.bodies.reading(request) as body:
        partner = await context.partners.authenticate(signed_request(request, body, settings.public_path_prefix))
        limits = Limits(
            json_depth_max=settings.json_depth_max,
            channel_stock_entries_max=settings.channel_stock_entries_max,
            as_of_latest=latest_as_of(context.clock.now(), settings.as_of_ahead_seconds_max),
        )
        keys = request.headers.getall("idempotency-key", [])
        update = read_update(body, limits, key_problems(keys, settings.idempotency_key_chars_max))
        idempotency = Idempotency(keys[0], hashlib.sha256(body).digest()) if keys else None
        return Submission(partner.tenant_id, partner.id, uuid4(), update, idempotency)
