-- Two rows of numbers added up, the shorter one filled with zeros.
CREATE FUNCTION sums_of(bigint[], bigint[]) RETURNS bigint[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0) FROM unnest($1, $2) WITH ORDINALITY AS both_ (a, b, n) ORDER BY n);

-- Where the row of a due listing lies now: who has found it need not look for its key again, which costs by the number
-- of its dead versions while somebody holds a snapshot. What its warehouses add is read key by key, newest version first.
CREATE OR REPLACE VIEW due_listing AS
SELECT s.tenant_id, s.store_id, s.listing_id, s.lane, s.due_for, s.version_due, s.quantity_due, s.attempts,
       l.remote_variant, s.quantity_delivered, s.quantity_floor, s.quantity_doubtful,
       CASE WHEN s.delivered_at IS NULL OR s.observed_at > s.delivered_at THEN s.quantity_observed
            ELSE s.quantity_delivered END AS quantity_expected,
       extract(epoch FROM s.doubtful_until - now())::float8 AS doubt_left_seconds,
       s.handle, s.handle_version, s.handle_quantity,
       extract(epoch FROM now() - s.handle_at)::float8 AS handle_age_seconds,
       (SELECT CASE WHEN bool_or(p.named) THEN jsonb_object_agg(p.location, p.quantity) END FROM (
            SELECT u.location, sum(u.quantity) AS quantity, bool_or(u.named) AS named FROM (
                SELECT coalesce(c.location, '') AS location, c.quantity, c.location IS NOT NULL AS named
                FROM store_warehouse w CROSS JOIN LATERAL (
                    SELECT c.location, c.quantity FROM contribution c
                    WHERE c.tenant_id = s.tenant_id AND c.listing_id = s.listing_id
                      AND c.warehouse_id >= w.warehouse_id AND c.warehouse_id <= w.warehouse_id
                    ORDER BY c.warehouse_id DESC LIMIT 1) c
                WHERE w.tenant_id = s.tenant_id AND w.store_id = s.store_id
                UNION ALL
                SELECT f.location, 0, false FROM former_location f
                WHERE f.tenant_id = s.tenant_id AND f.store_id = s.store_id
                  AND f.remote_variant = l.remote_variant) u
            GROUP BY u.location) p) AS locations,
       s.ctid AS address
FROM listing_state s
JOIN listing l ON l.tenant_id = s.tenant_id AND l.id = s.listing_id
WHERE s.lane > 0;

-- Entries with the same key are one by one in the order of their rows' places, so that the newest is found from the end.
-- Gathered into lists they would be read from the beginning of each list, whichever way the index is read.
ALTER INDEX listing_state_pkey SET (deduplicate_items = off);
ALTER INDEX contribution_pkey SET (deduplicate_items = off);
ALTER INDEX stock_level_pkey SET (deduplicate_items = off);
ALTER INDEX stats_minute_pkey SET (deduplicate_items = off);
