"""Who did what: every change of an operator is written down in the transaction that makes it."""

from __future__ import annotations

import getpass
import os

from lumbung.db import tenants
from lumbung.db.query import Connection


def actor() -> str:
    """`cli:` and the user of the operating system."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user without a name
        return f"cli:{os.getuid()}"


async def write(connection: Connection, tenant_id: int, action: str, subject: str, **detail: object) -> None:
    """`detail` must hold no secret."""
    await tenants.add_audit(
        connection, tenant_id=tenant_id, actor=actor(), action=action, subject=subject, detail=detail
    )
