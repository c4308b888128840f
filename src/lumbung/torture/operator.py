"""Who looks after the hub: a store whose authorisation is dead is authorised again, as its operator would do it."""

from __future__ import annotations

import asyncio
import time

from lumbung.db import inspection
from lumbung.errors import LumbungError
from lumbung.torture.journal import Mended
from lumbung.torture.targets import Targets


async def look_after(targets: Targets) -> None:
    """Look every lifetime. Never ends."""
    poisoned = {(store.channel, store.code) for store in targets.world.stores if store.poison}
    while True:
        await asyncio.sleep(targets.lifetime)
        try:
            async with targets.pool.connection() as connection:
                paused = await inspection.paused(connection)
            for account, reason in paused.items():
                if account not in poisoned:
                    began_at = time.time()  # who withdraws from now on may be too late, or must be mended again
                    await targets.agree_again(*account)
                    targets.journal.mended.append(Mended(account, began_at, reason))
        except (LumbungError, OSError):
            continue  # the database or the sandbox is away: it is looked at again
