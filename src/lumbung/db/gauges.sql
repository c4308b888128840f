-- What stands in the way of everything being delivered, counted for the metrics. Each count ends at rows_max: beyond that
-- the exact number changes nothing, and counting must not cost more than delivering.

-- name: count_due
SELECT lane, count(*) AS n FROM (SELECT lane FROM listing_state WHERE lane > 0 LIMIT :rows_max) due GROUP BY lane

-- name: count_waiting
SELECT reason, count(*) AS n FROM (SELECT reason FROM listing_wait LIMIT :rows_max) waiting GROUP BY reason

-- name: count_parked$
SELECT count(*) FROM (SELECT FROM listing_state WHERE park_reason IS NOT NULL LIMIT :rows_max) parked

-- name: oldest_due$
-- Among the first hundred of each store that has something due: its cursor goes round, so old ones are not left behind
-- in any one place for long.
WITH RECURSIVE store AS (
    (SELECT tenant_id, store_id FROM listing_state WHERE lane > 0 ORDER BY tenant_id, store_id LIMIT 1)
    UNION ALL
    SELECT n.tenant_id, n.store_id FROM store d CROSS JOIN LATERAL (
        SELECT tenant_id, store_id FROM listing_state
        WHERE lane > 0 AND (tenant_id, store_id) > (d.tenant_id, d.store_id)
        ORDER BY tenant_id, store_id LIMIT 1) n
)
SELECT coalesce(extract(epoch FROM now() - min(s.due_since)), 0)::float8
FROM store CROSS JOIN LATERAL (
    SELECT due_since FROM listing_state s
    WHERE s.tenant_id = store.tenant_id AND s.store_id = store.store_id AND s.lane > 0
    ORDER BY s.lane, s.listing_id LIMIT 100
) s
