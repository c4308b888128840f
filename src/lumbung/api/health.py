"""/healthz: the process answers. /readyz: it can do its work. /metrics: for Prometheus."""

from __future__ import annotations

from litestar import Response, get
from litestar.di import NamedDependency

from lumbung.api.context import ApiContext
from lumbung.db.migrate import newest_version, schema_version
from lumbung.errors import LumbungError


@get("/healthz", include_in_schema=False, sync_to_thread=False)
def healthz() -> dict[str, str]:
    return {"status": "ok"}


@get("/readyz", include_in_schema=False)
async def readyz(context: NamedDependency[ApiContext]) -> Response[dict[str, object]]:
    try:
        async with context.pool.connection() as connection:
            version = await schema_version(connection)
    except LumbungError as error:
        return Response({"status": "not ready", "reason": error.public}, status_code=503)
    if version < newest_version():
        reason = f"The schema is at version {version}, this process needs {newest_version()}"
        return Response({"status": "not ready", "reason": reason}, status_code=503)
    return Response({"status": "ready", "schema_version": version})


@get("/metrics", include_in_schema=False, sync_to_thread=False)
def metrics(context: NamedDependency[ApiContext]) -> Response[bytes]:
    return Response(context.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
