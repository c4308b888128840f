"""/healthz: the process answers. /readyz: it can do its work. /metrics: for Prometheus."""

from __future__ import annotations

from litestar import Response, get

from lumbung.api.context import context_of
from lumbung.api.errors import AnyRequest
from lumbung.api.reference import note_refusal
from lumbung.db.migrate import is_writable
from lumbung.db.schema import newest_version, schema_version
from lumbung.errors import LumbungError


@get("/healthz", include_in_schema=False, sync_to_thread=False)
def healthz() -> dict[str, str]:
    return {"status": "ok"}


@get("/readyz", include_in_schema=False)
async def readyz(request: AnyRequest) -> Response[dict[str, object]]:
    """Schemas newer than this process are fine: a new version brings it while the old one still answers."""
    context = context_of(request.app)
    try:
        async with context.pool.connection() as connection:
            version = await schema_version(connection)
            writable = await is_writable(connection)
    except LumbungError as error:
        return _not_ready(request, error.public, str(error))
    if version < newest_version():
        return _not_ready(request, f"The schema is at version {version}, this process needs {newest_version()}")
    if context.partners.are_sealed():
        return _not_ready(request, "The key file is missing")
    if not writable:
        return _not_ready(request, "The database can only be read")
    return Response({"status": "ready", "schema_version": version})


def _not_ready(request: AnyRequest, reason: str, detail: str = "") -> Response[dict[str, object]]:
    note_refusal(request.scope, detail or reason)
    return Response({"status": "not ready", "reason": reason}, status_code=503)


@get("/metrics", include_in_schema=False, sync_to_thread=False)
def metrics(request: AnyRequest) -> Response[bytes]:
    return Response(context_of(request.app).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
