"""The delivery half's storage in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from lumbung.db import budget, delivery, lease, stores
from lumbung.db.budget import Grant
from lumbung.db.delivery import Due, Named, Work
from lumbung.db.lease import NO_DOUBTS, ChannelTimes, LeaseRow, StoredTokens
from lumbung.db.pool import Pool
from lumbung.db.wake import Hints
from lumbung.dispatch import recording
from lumbung.dispatch.recording import RESPONSE_BYTES_MAX, storable
from lumbung.dispatch.report import Lease, Report
from lumbung.dispatch.storage import Recorded, Renewal
from lumbung.dispatch.together import Together
from lumbung.errors import CommitUnknown, LumbungError
from lumbung.settings import Settings


class PostgresStorage:
    """`lease_pool` has a connection of its own, so that renewing never queues behind reading and recording."""

    def __init__(self, pool: Pool, lease_pool: Pool, settings: Settings, channels: Mapping[str, ChannelTimes]):
        self._pool = pool
        self._lease_pool = lease_pool
        self._settings = settings
        self._channels = channels
        self._named = Together(self._due_of_all, most=settings.stores_read_together_max)

    # --- this process ---

    async def register(self, name: str, lifetime_seconds: float) -> int:
        async with self._lease_pool.connection() as connection:
            return await lease.register(
                connection, name=name, lifetime_seconds=lifetime_seconds, channels=self._channels
            )

    async def renew(self, worker_id: int) -> Renewal | None:
        async with self._lease_pool.connection() as connection:
            live = await lease.renew(connection, worker_id)
            # Afterwards, as a statement of its own: it sees whatever was claimed while we were late.
            return None if live is None else Renewal(await lease.held(connection, worker_id), live)

    async def stop(self, worker_id: int) -> None:
        async with self._pool.connection() as connection:
            await lease.stop(connection, worker_id)

    # --- stores ---

    async def look(self, working: Iterable[int]) -> list[Work]:
        async with self._pool.connection() as connection:
            return await delivery.stores_with_work(
                connection,
                working=working,
                wait_seconds_max=self._wait_seconds_max(),
                renew_ahead_seconds=self._settings.token_renew_ahead_seconds,
            )

    async def claim(self, worker_id: int, store_ids: Iterable[int], limit: int) -> list[LeaseRow]:
        async with self._pool.connection() as connection:
            return await lease.claim(
                connection, worker_id=worker_id, store_ids=store_ids, channels=self._channels, limit=limit
            )

    async def give_back(
        self, worker_id: int, store_ids: Iterable[int], doubts: Mapping[int, float] = NO_DOUBTS
    ) -> None:
        async with self._pool.connection() as connection:
            await lease.give_back(connection, worker_id=worker_id, store_ids=store_ids, doubts=doubts)

    async def note_quiesce(self, held: Lease, seconds: float) -> None:
        async with self._pool.connection() as connection:
            await lease.note_quiesce(connection, store_id=held.store_id, epoch=held.epoch, seconds=seconds)

    async def note_trouble(self, held: Lease, trouble: str | None) -> None:
        async with self._pool.connection() as connection:
            await lease.note_trouble(
                connection,
                store_id=held.store_id,
                epoch=held.epoch,
                trouble=trouble and storable(trouble, RESPONSE_BYTES_MAX),
            )

    async def pause(self, held: Lease, reason: str) -> bool:
        async with self._pool.connection() as connection:
            return await stores.pause_held(
                connection,
                tenant_id=held.tenant_id,
                store_id=held.store_id,
                epoch=held.epoch,
                reason=storable(reason, RESPONSE_BYTES_MAX),
            )

    # --- listings ---

    async def release_waits(self, store_ids: Iterable[int]) -> Hints:
        async with self._pool.connection() as connection:
            return await delivery.release_waits(
                connection,
                store_ids=store_ids,
                wait_seconds_max=self._wait_seconds_max(),
                limit=self._settings.chunk_rows_max,
            )

    async def due_window(
        self, held: Lease, *, cursors: Mapping[int, int], busy: Iterable[int], limit: int, with_locations: bool
    ) -> list[Due]:
        async with self._pool.connection() as connection:
            return await delivery.due_window(
                connection,
                tenant_id=held.tenant_id,
                store_id=held.store_id,
                epoch=held.epoch,
                cursors=cursors,
                busy=busy,
                limit=limit,
                with_locations=with_locations,
            )

    async def due_now(self, held: Lease, listing_ids: Sequence[int], *, with_locations: bool) -> list[Due]:
        return await self._named.ask(Named(held.tenant_id, held.store_id, held.epoch, listing_ids, with_locations))

    async def _due_of_all(self, asked: Sequence[Named]) -> list[list[Due]]:
        async with self._pool.connection() as connection:
            return await delivery.due_now(connection, asked)

    async def record(self, reports: Sequence[Report]) -> Recorded:
        """One transaction. When its COMMIT is not answered PostgreSQL is asked, as long as it takes, what became of it:
        nothing is counted twice, and nothing that took effect is taken for lost."""
        while True:
            transaction, recorded = "", Recorded(set())
            try:
                async with self._pool.transaction(lock_timeout_ms=self._settings.record_lock_timeout_ms) as connection:
                    transaction = await delivery.transaction_id(connection)
                    recorded = await recording.record(connection, reports, self._settings)
            except CommitUnknown:
                if not await self._took_effect(transaction):
                    continue
            return recorded

    async def _took_effect(self, transaction: str) -> bool:
        while True:
            try:
                async with self._pool.connection() as connection:
                    status = await delivery.transaction_status(connection, transaction)
                if status != "in progress":
                    return status == "committed"
            except LumbungError:
                pass  # away: there is nothing else to do than to ask again
            await asyncio.sleep(self._settings.poll_seconds)

    # --- what stores share, and their tokens ---

    async def reserve(self, channel_app_id: int, calls: int) -> Grant:
        async with self._pool.connection() as connection:
            return await budget.reserve(
                connection,
                channel_app_id=channel_app_id,
                calls=calls,
                block_seconds_max=self._settings.throttle_seconds_max,
            )

    async def block(self, channel_app_id: int, seconds: float) -> None:
        async with self._pool.connection() as connection:
            await budget.block(
                connection,
                channel_app_id=channel_app_id,
                seconds=seconds,
                block_seconds_max=self._settings.throttle_seconds_max,
            )

    async def swap_tokens(self, held: Lease, old_digest: bytes | None, new: StoredTokens) -> bool:
        async with self._pool.connection() as connection:
            return await lease.swap_tokens(
                connection, tenant_id=held.tenant_id, store_id=held.store_id, old_digest=old_digest, new=new
            )

    async def read_tokens(self, held: Lease) -> tuple[bytes, bytes] | None:
        async with self._pool.connection() as connection:
            return await lease.read_tokens(connection, tenant_id=held.tenant_id, store_id=held.store_id)

    def _wait_seconds_max(self) -> float:
        """No wait is longer; one that is further ahead was written before the clock jumped back."""
        settings = self._settings
        quiesce = max((times.quiesce_seconds for times in self._channels.values()), default=0.0)
        return max(
            settings.backoff_max_seconds,
            settings.park_retry_seconds,
            settings.defer_seconds_max,
            settings.throttle_seconds_max,
            settings.floor_retry_seconds,
            settings.submitted_check_seconds_max,
            settings.doubt_seconds_max,
            2 * quiesce,
        )
