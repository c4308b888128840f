-- What each store did in each minute. Rows of one writer's slot only: see the migration.

-- name: add_stats!
-- Sorted, and last in a transaction.
INSERT INTO stats_minute AS s (tenant_id, store_id, minute, slot, accepted, pushed, failed, latency)
SELECT r.tenant_id, r.store_id, date_trunc('minute', now()), pg_backend_pid() % 16, r.accepted, r.pushed, r.failed,
       r.latency::bigint[]
FROM unnest(:tenant_ids::bigint[], :store_ids::bigint[], :accepted::bigint[], :pushed::bigint[], :failed::bigint[],
            :latencies::text[]) AS r (tenant_id, store_id, accepted, pushed, failed, latency)
ORDER BY 1, 2
ON CONFLICT (tenant_id, store_id, minute, slot) DO UPDATE SET
    accepted = s.accepted + EXCLUDED.accepted, pushed = s.pushed + EXCLUDED.pushed, failed = s.failed + EXCLUDED.failed,
    latency = ARRAY(SELECT coalesce(old, 0) + coalesce(new, 0)
                    FROM unnest(s.latency, EXCLUDED.latency) WITH ORDINALITY AS both_ (old, new, n) ORDER BY n)

-- name: forget_stats!
DELETE FROM stats_minute WHERE minute < now() - :days * interval '1 day'
