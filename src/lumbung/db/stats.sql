-- What each store did in each minute. Rows of one writer's slot only: see the migration.

-- name: add_stats!
-- Sorted, and last in a transaction. A store's row of this minute changes with every transaction: it is found newest version
-- first and locked there (see due_now), and written where it lies. One that somebody else with the same slot has written
-- since is not seen there; that goes by its key. So does everything as long as one of the rows is not there yet, in one
-- order: who locked some and then made others would wait for who does the same the other way round.
WITH r AS MATERIALIZED (
    SELECT r.tenant_id, r.store_id, date_trunc('minute', now()) AS minute, (pg_backend_pid() % 16)::smallint AS slot,
           r.accepted, r.pushed, r.failed, r.latency::bigint[]
    FROM unnest(:tenant_ids::bigint[], :store_ids::bigint[], :accepted::bigint[], :pushed::bigint[], :failed::bigint[],
                :latencies::text[]) AS r (tenant_id, store_id, accepted, pushed, failed, latency)
    ORDER BY 1, 2
), seen AS (
    SELECT count(*) AS n FROM r CROSS JOIN LATERAL (
        SELECT FROM stats_minute s
        WHERE s.tenant_id = r.tenant_id AND s.store_id = r.store_id AND s.minute = r.minute
          AND s.slot >= r.slot AND s.slot <= r.slot
        ORDER BY s.slot DESC LIMIT 1
    ) s
), known AS MATERIALIZED (
    SELECT r.*, s.address
    FROM r CROSS JOIN LATERAL (
        SELECT s.ctid AS address FROM stats_minute s
        WHERE s.tenant_id = r.tenant_id AND s.store_id = r.store_id AND s.minute = r.minute
          AND s.slot >= r.slot AND s.slot <= r.slot
        ORDER BY s.slot DESC LIMIT 1
        FOR NO KEY UPDATE
    ) s
    WHERE (SELECT n FROM seen) = (SELECT count(*) FROM r)
), written AS (
    UPDATE stats_minute s
    SET accepted = s.accepted + k.accepted, pushed = s.pushed + k.pushed, failed = s.failed + k.failed,
        latency = sums_of(s.latency, k.latency)
    FROM known k WHERE s.ctid = k.address
    RETURNING s.tenant_id, s.store_id
)
INSERT INTO stats_minute AS s (tenant_id, store_id, minute, slot, accepted, pushed, failed, latency)
SELECT r.* FROM r
WHERE NOT EXISTS (SELECT FROM written w WHERE (w.tenant_id, w.store_id) = (r.tenant_id, r.store_id))
ORDER BY 1, 2
ON CONFLICT (tenant_id, store_id, minute, slot) DO UPDATE SET
    accepted = s.accepted + EXCLUDED.accepted, pushed = s.pushed + EXCLUDED.pushed, failed = s.failed + EXCLUDED.failed,
    latency = sums_of(s.latency, EXCLUDED.latency)

-- name: forget_stats!
DELETE FROM stats_minute WHERE minute < now() - :days * interval '1 day'
