-- Items that are out of time. How the sweep goes, and why nothing is looked at twice: dispatch/deadline.py.

-- name: add_watermarks!
-- A row for each tenant that has none yet.
INSERT INTO item_deadline (tenant_id)
SELECT id FROM tenant t WHERE NOT EXISTS (SELECT FROM item_deadline d WHERE d.tenant_id = t.id)
ORDER BY id
ON CONFLICT DO NOTHING

-- name: sweep_seconds$
-- How often to sweep: a tenant with a shorter deadline is swept at least that often.
SELECT least(:sweep_seconds::float8, min(history_item_deadline_seconds)) FROM tenant

-- name: pass_over!
-- Tenants without an item that is out of time, all at once: their watermarks move, and they are swept. Those whose
-- watermark is far behind are left to the chunks. Each one's records are read by their key up to the first that is open:
-- the LIMIT keeps the planner from joining with all of the history.
WITH idle AS MATERIALIZED (
    SELECT d.tenant_id, now() - (t.history_item_deadline_seconds + :margin_seconds::float8) * interval '1 second' AS until
    FROM item_deadline d JOIN tenant t ON t.id = d.tenant_id
    WHERE (d.swept_at <= now() - least(:sweep_seconds::float8, t.history_item_deadline_seconds) / 2 * interval '1 second'
           OR d.swept_at > now())
      AND d.ended_until <= now()
      AND d.ended_until > now() - (t.history_item_deadline_seconds + :margin_seconds + 600) * interval '1 second'
      AND (SELECT true FROM stock_update u
           WHERE u.tenant_id = d.tenant_id AND u.created_at >= d.ended_until AND u.finished_at IS NULL
             AND u.created_at < now() - t.history_item_deadline_seconds * interval '1 second'
           ORDER BY u.created_at LIMIT 1) IS NULL
    ORDER BY d.tenant_id
    FOR NO KEY UPDATE OF d SKIP LOCKED
)
UPDATE item_deadline d SET ended_until = greatest(d.ended_until, idle.until), swept_at = now()
FROM idle WHERE d.tenant_id = idle.tenant_id

-- name: tenants_to_sweep
SELECT d.tenant_id FROM item_deadline d JOIN tenant t ON t.id = d.tenant_id
WHERE d.swept_at <= now() - least(:sweep_seconds::float8, t.history_item_deadline_seconds) / 2 * interval '1 second'
   OR d.swept_at > now()
ORDER BY d.swept_at, d.tenant_id

-- name: take_turn^
-- A tenant's row, unless it was swept meanwhile or somebody else sweeps it. `since` to `before` is to be looked at, and
-- the watermark may move to `until`. A watermark that is ahead of the clock was set before the clock jumped back: then
-- everything is looked at.
SELECT t.history_item_deadline_seconds AS deadline_seconds,
       CASE WHEN d.ended_until > now() THEN timestamptz 'epoch' ELSE greatest(d.ended_until, 'epoch') END AS since,
       now() - t.history_item_deadline_seconds * interval '1 second' AS before,
       now() - (t.history_item_deadline_seconds + :margin_seconds::float8) * interval '1 second' AS until
FROM item_deadline d JOIN tenant t ON t.id = d.tenant_id
WHERE d.tenant_id = :tenant_id
  AND (d.swept_at <= now() - least(:sweep_seconds::float8, t.history_item_deadline_seconds) / 2 * interval '1 second'
       OR d.swept_at > now())
FOR NO KEY UPDATE OF d SKIP LOCKED

-- name: open_records
-- A page of records by their key: those that are not finished, until their open items are `items_max`, and the page's
-- last one, so that the next page begins there.
WITH page AS MATERIALIZED (
    SELECT u.created_at, u.id, u.items_open FROM stock_update u
    WHERE u.tenant_id = :tenant_id AND u.created_at >= :after_at AND u.created_at < :before
      AND (u.created_at, u.id) > (:after_at, :after_id::bigint)
    ORDER BY u.created_at, u.id LIMIT :records_max
), counted AS (
    SELECT created_at, id, items_open, sum(items_open) OVER earlier - items_open AS items_before,
           row_number() OVER earlier AS number, count(*) OVER () AS records
    FROM page WINDOW earlier AS (ORDER BY created_at, id)
)
SELECT created_at, id, items_open > 0 AS open, number < records OR records = :records_max AS more
FROM counted
WHERE items_before < :items_max AND (items_open > 0 OR number = records)
ORDER BY created_at, id

-- name: listings_of_open_items
SELECT DISTINCT i.listing_id
FROM unnest(:created_ats::timestamptz[], :update_ids::bigint[]) AS r (created_at, update_id)
JOIN item i ON i.tenant_id = :tenant_id AND i.created_at = r.created_at AND i.update_id = r.update_id
WHERE i.finished_at IS NULL AND i.listing_id IS NOT NULL

-- name: read_open_items
-- After the states are locked: what is still open, and all that tells why.
SELECT i.created_at, i.update_id, i.id,
       coalesce(greatest(0, s.calls - c.calls_before - 1), 0) AS retries,
       st.mode AS store_mode, st.pause_reason, t.disabled_at IS NOT NULL AS tenant_disabled, l.trouble, l.trouble_since,
       s.state, s.due_for, s.park_reason, s.failing_since, s.last_outcome, s.last_message, w.reason AS wait_reason
FROM unnest(:created_ats::timestamptz[], :update_ids::bigint[]) AS r (created_at, update_id)
JOIN item i ON i.tenant_id = :tenant_id AND i.created_at = r.created_at AND i.update_id = r.update_id
JOIN tenant t ON t.id = i.tenant_id
LEFT JOIN store st ON st.tenant_id = i.tenant_id AND st.id = i.store_id
LEFT JOIN store_lease l ON l.store_id = i.store_id
LEFT JOIN listing_state s ON s.tenant_id = i.tenant_id AND s.listing_id = i.listing_id
LEFT JOIN contribution c ON c.tenant_id = i.tenant_id AND c.listing_id = i.listing_id AND c.warehouse_id = i.warehouse_id
                        AND c.item_id = i.id AND c.item_created_at = i.created_at
LEFT JOIN listing_wait w ON w.tenant_id = i.tenant_id AND w.listing_id = i.listing_id
WHERE i.finished_at IS NULL
ORDER BY i.created_at, i.update_id, i.id

-- name: end_late_items$
-- Ends what is still open, counts it off the records, locked in order of their keys, and returns how many items ended.
WITH ended AS (
    UPDATE item i SET success = false, message = r.message, client_response = '', retries = r.retries,
                      finished_at = clock_timestamp()
    FROM unnest(:created_ats::timestamptz[], :update_ids::bigint[], :ids::bigint[], :messages::text[], :retries::int[])
         AS r (created_at, update_id, id, message, retries)
    WHERE i.tenant_id = :tenant_id AND i.created_at = r.created_at AND i.update_id = r.update_id AND i.id = r.id
      AND i.finished_at IS NULL
    RETURNING i.created_at, i.update_id
), tally AS (
    SELECT created_at, update_id, count(*) AS n FROM ended GROUP BY 1, 2
), locked AS MATERIALIZED (
    SELECT u.created_at, u.id, t.n
    FROM tally t JOIN stock_update u ON u.tenant_id = :tenant_id AND u.created_at = t.created_at AND u.id = t.update_id
    ORDER BY 1, 2
    FOR NO KEY UPDATE OF u
), counted AS (
    UPDATE stock_update u
    SET items_open = u.items_open - l.n, updated_at = clock_timestamp(),
        finished_at = CASE WHEN u.items_open = l.n THEN clock_timestamp() END
    FROM locked l
    WHERE u.tenant_id = :tenant_id AND u.created_at = l.created_at AND u.id = l.id
)
SELECT count(*) FROM ended

-- name: move_watermark!
UPDATE item_deadline
SET ended_until = :ended_until, swept_at = CASE WHEN :swept THEN now() ELSE swept_at END
WHERE tenant_id = :tenant_id
