-- The history of updates: counters (migrations/0003_history_counters.sql) say where a page is, records are read there.
-- A filter by updated_at cuts through the 10 s that it falls in: what is of later ones is counted, of these it is read.
-- Ranges of created_at are from :lows to before :highs. :oldest and :newest bound all of them: a constant, with which the
-- planner leaves the other weeks out.

-- name: keep_partitions!
-- Before the snapshot: a week that is counted is not detached until the page is read.
LOCK TABLE ONLY stock_update IN ACCESS SHARE MODE

-- name: spans
-- Hours or days of a tenant's history, within ranges of such: how many records, and whether all, none or some match.
-- What is older than the history is kept is left out; in whole hours, so that a span is cut only where it has finer ones.
WITH kept AS (
    SELECT greatest(history_kept_from, history_bucket(3600, now() - history_retention_days * interval '1 day')) AS since
    FROM tenant WHERE id = :tenant_id
), counted AS (
    SELECT s.starts, s.records, s.first_updated, s.last_updated, s.has_cells
    FROM unnest(:lows::timestamptz[], :highs::timestamptz[]) AS r (low, high)
    JOIN history_span s ON s.tenant_id = :tenant_id AND s.seconds = :seconds AND s.starts >= r.low AND s.starts < r.high
    UNION ALL
    SELECT history_bucket(:seconds, d.created), sum(d.records), min(d.updated), max(d.updated), NULL
    FROM unnest(:lows::timestamptz[], :highs::timestamptz[]) AS r (low, high)
    JOIN history_delta d ON d.tenant_id = :tenant_id AND d.created >= r.low AND d.created < r.high
    GROUP BY 1
), span AS (
    SELECT starts, sum(records)::bigint AS records, min(first_updated) AS first_updated, max(last_updated) AS last_updated,
           coalesce(bool_or(has_cells), true) AS has_cells
    FROM counted GROUP BY starts
)
SELECT starts AS low, starts + :seconds * interval '1 second' AS high, records, has_cells,
       (kept.since IS NULL OR starts >= kept.since)
           AND (:updated_at::timestamptz IS NULL OR first_updated > history_bucket(10, :updated_at)) AS whole
FROM span LEFT JOIN kept ON true
WHERE records > 0 AND (kept.since IS NULL OR starts + :seconds * interval '1 second' > kept.since)
  AND (:updated_at IS NULL OR last_updated >= history_bucket(10, :updated_at))
ORDER BY starts DESC

-- name: cells
-- How many records of each 10 s match, within hours that have counters by 10 s.
WITH filter AS MATERIALIZED (
    SELECT history_bucket(10, :updated_at::timestamptz) AS bucket, history_bucket(10, :updated_at) + interval '10 seconds' AS ends
), counted AS (
    SELECT c.created, sum(c.records) AS records
    FROM filter CROSS JOIN unnest(:lows::timestamptz[], :highs::timestamptz[]) AS r (low, high)
    JOIN history_cell c ON c.tenant_id = :tenant_id AND c.created >= r.low AND c.created < r.high
    WHERE filter.bucket IS NULL OR c.updated > filter.bucket
    GROUP BY 1
    UNION ALL
    SELECT d.created, sum(d.records)
    FROM filter CROSS JOIN unnest(:lows::timestamptz[], :highs::timestamptz[]) AS r (low, high)
    JOIN history_delta d ON d.tenant_id = :tenant_id AND d.created >= r.low AND d.created < r.high
    WHERE filter.bucket IS NULL OR d.updated > filter.bucket
    GROUP BY 1
    UNION ALL -- updated within the 10 s of the filter
    SELECT found.created, sum(found.records)
    FROM filter CROSS JOIN unnest(:lows::timestamptz[], :highs::timestamptz[]) AS r (low, high)
    CROSS JOIN LATERAL (
        SELECT history_bucket(10, u.created_at) AS created, count(*) AS records FROM stock_update u
        WHERE u.tenant_id = :tenant_id AND u.created_at >= r.low AND u.created_at < r.high
          AND u.created_at >= :oldest AND u.created_at < :newest
          AND u.updated_at >= :updated_at AND u.updated_at < filter.ends AND u.updated_at <> u.created_at
        GROUP BY 1
    ) found
    GROUP BY 1
    UNION ALL -- made within them and not updated since
    SELECT filter.bucket, sum(found.records)
    FROM filter CROSS JOIN unnest(:lows::timestamptz[], :highs::timestamptz[]) AS r (low, high)
    CROSS JOIN LATERAL (
        SELECT count(*) AS records FROM stock_update u
        WHERE u.tenant_id = :tenant_id AND u.created_at >= greatest(r.low, :updated_at)
          AND u.created_at < least(r.high, filter.ends) AND u.updated_at = u.created_at
          AND u.created_at >= :oldest AND u.created_at < :newest
    ) found
    WHERE filter.bucket IS NOT NULL
    GROUP BY 1
)
SELECT created AS low, created + interval '10 seconds' AS high, sum(records)::bigint AS records
FROM counted GROUP BY created HAVING sum(records) > 0
ORDER BY created DESC

-- name: scan
-- How many records of each range match, by reading them: of hours that have few.
SELECT r.low, r.high, found.records
FROM unnest(:lows::timestamptz[], :highs::timestamptz[]) AS r (low, high)
CROSS JOIN LATERAL (
    SELECT count(*) AS records FROM stock_update u
    WHERE u.tenant_id = :tenant_id AND u.created_at >= r.low AND u.created_at < r.high AND u.updated_at >= :updated_at
      AND u.created_at >= :oldest AND u.created_at < :newest
) found
WHERE found.records > 0
ORDER BY r.low DESC

-- name: page
-- Records newest first with their items: of each range that has a part of the page, that part. `retries` of an open item
-- are read live from its listing.
WITH page AS (
    SELECT u.*
    FROM unnest(:lows::timestamptz[], :highs::timestamptz[], :skips::bigint[], :takes::bigint[]) AS r (low, high, skip, take)
    CROSS JOIN LATERAL (
        SELECT * FROM stock_update u
        WHERE u.tenant_id = :tenant_id AND u.created_at >= r.low AND u.created_at < r.high
          AND u.created_at >= :oldest AND u.created_at < :newest
          AND (:updated_at::timestamptz IS NULL OR u.updated_at >= :updated_at)
        ORDER BY u.created_at DESC, u.id DESC
        LIMIT r.take OFFSET r.skip
    ) u
)
SELECT p.id, p.user_id, p.transaction_code, p.action_name, p.upload_file_url, p.total_sku,
       p.created_at, p.updated_at, p.finished_at,
       i.id AS item_id, i.store_id, coalesce(s.name, '') AS store_name, i.warehouse_id, w.name AS warehouse_name,
       i.variant_id, v.sku, coalesce(l.remote_variant, '') AS remote_variant, i.row_number, i.channel, i.quantity,
       CASE WHEN i.finished_at IS NULL THEN greatest(0, t.calls - c.calls_before - 1) ELSE i.retries END AS retries,
       i.client_response, i.message, i.success, i.finished_at AS item_finished_at
FROM page p
LEFT JOIN LATERAL (
    SELECT * FROM item i
    WHERE i.tenant_id = p.tenant_id AND i.created_at = p.created_at AND i.update_id = p.id
      AND i.created_at >= :oldest AND i.created_at < :newest
    ORDER BY i.id LIMIT :items_max
) i ON true
LEFT JOIN store s ON s.tenant_id = i.tenant_id AND s.id = i.store_id
LEFT JOIN warehouse w ON w.tenant_id = i.tenant_id AND w.id = i.warehouse_id
LEFT JOIN variant v ON v.tenant_id = i.tenant_id AND v.id = i.variant_id
LEFT JOIN listing l ON l.tenant_id = i.tenant_id AND l.id = i.listing_id
LEFT JOIN listing_state t ON t.tenant_id = i.tenant_id AND t.listing_id = i.listing_id
LEFT JOIN contribution c ON c.tenant_id = i.tenant_id AND c.listing_id = i.listing_id AND c.warehouse_id = i.warehouse_id
ORDER BY p.created_at DESC, p.id DESC, i.id

-- name: take_turn$
-- One process at a time rolls up, so that two do not meet in a deadlock; nothing else rests on it.
SELECT pg_try_advisory_xact_lock(hashtext('lumbung: roll up the history'))

-- name: roll_up$
-- Moves deltas that nobody adds to any more into the counters; returns how many. What another transaction holds stays.
-- The row of an hour is locked when its has_cells is read here: it says the newest, also when it was changed meanwhile.
WITH due AS (
    SELECT ctid FROM history_delta
    WHERE written <= now() - :seconds * interval '1 second'
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
), moved AS (
    DELETE FROM history_delta d WHERE d.ctid = ANY(ARRAY(SELECT ctid FROM due))
    RETURNING d.tenant_id, d.created, d.updated, d.records
), hours AS (
    INSERT INTO history_span AS s (tenant_id, seconds, starts, records, first_updated, last_updated, has_cells)
    SELECT tenant_id, 3600, history_bucket(3600, created), sum(records), min(updated), max(updated), true
    FROM moved GROUP BY 1, 3 ORDER BY 1, 3
    ON CONFLICT (tenant_id, seconds, starts) DO UPDATE SET
        records = s.records + EXCLUDED.records,
        first_updated = least(s.first_updated, EXCLUDED.first_updated),
        last_updated = greatest(s.last_updated, EXCLUDED.last_updated)
    RETURNING tenant_id, starts, has_cells
), days AS (
    INSERT INTO history_span AS s (tenant_id, seconds, starts, records, first_updated, last_updated, has_cells)
    SELECT tenant_id, 86400, history_bucket(86400, created), sum(records), min(updated), max(updated), false
    FROM moved GROUP BY 1, 3 ORDER BY 1, 3
    ON CONFLICT (tenant_id, seconds, starts) DO UPDATE SET
        records = s.records + EXCLUDED.records,
        first_updated = least(s.first_updated, EXCLUDED.first_updated),
        last_updated = greatest(s.last_updated, EXCLUDED.last_updated)
), cells AS (
    INSERT INTO history_cell AS c (tenant_id, created, updated, records)
    SELECT m.tenant_id, m.created, m.updated, sum(m.records)
    FROM moved m JOIN hours h ON h.tenant_id = m.tenant_id AND h.starts = history_bucket(3600, m.created)
    WHERE h.has_cells
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (tenant_id, created, updated) DO UPDATE SET records = c.records + EXCLUDED.records
)
SELECT count(*) FROM moved

-- name: hours_to_fold
-- Hours whose records have become few enough, for good, to be read through. Locked: a roll-up waits and then sees that
-- they have no cells any more; one that was first is seen by the statement that removes the cells.
WITH few AS MATERIALIZED (
    SELECT tenant_id, starts FROM history_span
    WHERE has_cells AND starts < now() - :seconds * interval '1 second' AND records <= :records_max
    LIMIT :limit
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE history_span s SET has_cells = false
FROM few WHERE s.tenant_id = few.tenant_id AND s.seconds = 3600 AND s.starts = few.starts
RETURNING s.tenant_id, s.starts

-- name: fold!
-- An hour at a time: for many, the planner may compare each of them with every cell of its tenant (tried: 30 s).
DELETE FROM history_cell
WHERE tenant_id = :tenant_id AND created >= :starts AND created < :starts::timestamptz + interval '1 hour'

-- name: hide_before!
-- Before weeks are dropped: committed first, so that no snapshot counts what it cannot read.
UPDATE tenant SET history_kept_from = :at WHERE history_kept_from IS NULL OR history_kept_from < :at

-- name: forget_deltas!
-- Of a week that is gone. First of three: a roll-up that holds some of these ends before the others are looked for.
DELETE FROM history_delta WHERE created >= :starts AND created < :ends

-- name: forget_cells!
DELETE FROM history_cell WHERE created >= :starts AND created < :ends

-- name: forget_spans!
DELETE FROM history_span WHERE starts >= :starts AND starts < :ends

-- name: short_retentions
-- Tenants that keep less than everything, each with the time before which its history is hidden.
SELECT id, history_bucket(3600, now() - history_retention_days * interval '1 day') AS kept_from
FROM tenant WHERE history_retention_days IS NOT NULL
ORDER BY id

-- name: old_records
-- The oldest records that have ended, locked. What somebody holds is left for the next time. An ended item never changes,
-- so nobody else wants what belongs to these.
SELECT created_at, id FROM stock_update
WHERE tenant_id = :tenant_id AND created_at < :kept_from AND items_open = 0
ORDER BY created_at, id
LIMIT :limit
FOR UPDATE SKIP LOCKED

-- name: remove_items!
DELETE FROM item i
USING unnest(:created_ats::timestamptz[], :ids::bigint[]) AS r (created_at, id)
WHERE i.tenant_id = :tenant_id AND i.created_at = r.created_at AND i.update_id = r.id
  AND i.created_at BETWEEN :oldest AND :newest

-- name: remove_changes!
DELETE FROM stock_change c
USING unnest(:created_ats::timestamptz[], :ids::bigint[]) AS r (created_at, id)
WHERE c.tenant_id = :tenant_id AND c.created_at = r.created_at AND c.update_id = r.id
  AND c.created_at BETWEEN :oldest AND :newest

-- name: remove_records!
DELETE FROM stock_update u
USING unnest(:created_ats::timestamptz[], :ids::bigint[]) AS r (created_at, id)
WHERE u.tenant_id = :tenant_id AND u.created_at = r.created_at AND u.id = r.id
  AND u.created_at BETWEEN :oldest AND :newest
