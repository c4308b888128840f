"""The partner API as one ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import litestar_offline_docs
from litestar import Litestar
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.static_files import create_static_files_router
from litestar.types import ASGIApp

from lumbung.api.context import ApiContext
from lumbung.api.errors import answer_error
from lumbung.api.health import healthz, metrics, readyz
from lumbung.api.history import history
from lumbung.api.reference import ReferenceMiddleware
from lumbung.api.updatestocks import update_stocks
from lumbung.db.wake import Waker

_ASSETS = Path(litestar_offline_docs.__file__).parent / "static"


def create_app(context: ApiContext, waker: Waker) -> ASGIApp:
    """The application; its lifespan runs the group commit and the wake-ups.

    References are given outside of Litestar, whose own middleware sees no request that matches no route.
    """
    return ReferenceMiddleware(_routes(context, waker), metrics=context.metrics, clock=context.clock)


def _routes(context: ApiContext, waker: Waker) -> Litestar:

    @asynccontextmanager
    async def background(app: Litestar) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(context.commits.run()), asyncio.create_task(waker.run())]
        try:
            yield
            await context.commits.drain()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return Litestar(
        route_handlers=[
            update_stocks,
            history,
            healthz,
            readyz,
            metrics,
            create_static_files_router("/docs/static", [_ASSETS], include_in_schema=False),
        ],
        exception_handlers={Exception: answer_error},
        lifespan=[background],
        state=context.as_state(),
        request_max_body_size=None,  # ours is a setting
        openapi_config=OpenAPIConfig(
            title="Lumbung partner API",
            version=version("lumbung"),
            path="/docs",
            render_plugins=[
                SwaggerRenderPlugin(
                    js_url="/docs/static/swagger-ui-bundle.js",
                    css_url="/docs/static/swagger-ui.css",
                    standalone_preset_js_url="/docs/static/swagger-ui-standalone-preset.js",
                    path="/",
                    favicon="<link rel='icon' href='data:,'>",
                )
            ],
        ),
        logging_config=None,
    )
