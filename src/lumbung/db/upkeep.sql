-- What operators do about listings: what fails and trying it again, telling everything again, reading back.

-- name: failing_listings
-- Parked ones, those whose attempts keep failing, and those that the marketplace has locked or wants to show more than
-- they should. How often a parked one was tried is not known: its attempts begin anew when it is parked.
SELECT s.listing_id, st.name AS store, v.sku, l.remote_variant, s.state,
       CASE WHEN s.state <> 'parked' THEN s.attempts END AS attempts,
       coalesce(s.park_reason, s.last_message) AS why, CASE WHEN s.state = 'parked' THEN s.parked_at ELSE s.failing_since END AS since,
       w.reason AS waits_for, w.due_at AS waits_until, s.quantity_due, s.quantity_delivered
FROM listing_state s
JOIN listing l ON l.tenant_id = s.tenant_id AND l.id = s.listing_id
JOIN variant v ON v.tenant_id = l.tenant_id AND v.id = l.variant_id
JOIN store st ON st.tenant_id = s.tenant_id AND st.id = s.store_id
LEFT JOIN listing_wait w ON w.tenant_id = s.tenant_id AND w.listing_id = s.listing_id AND s.state = 'waiting'
WHERE s.tenant_id = :tenant_id AND (:store_id::bigint IS NULL OR s.store_id = :store_id) AND l.retired_at IS NULL
  AND (s.state = 'parked' OR s.state IN ('due', 'waiting') AND s.attempts >= :attempts_min
       OR w.reason IN ('deferred', 'floor'))
ORDER BY s.state <> 'parked', st.name, v.sku, s.listing_id LIMIT :limit

-- name: lock_failed
-- A chunk of the listings that are parked, or wait after a failure, for a lock to end or a floor to fall; sorted. What becomes of them is decided afterwards.
SELECT s.listing_id
FROM listing_state s
JOIN listing l ON l.tenant_id = s.tenant_id AND l.id = s.listing_id
JOIN variant v ON v.tenant_id = l.tenant_id AND v.id = l.variant_id
WHERE s.tenant_id = :tenant_id AND s.listing_id > :after AND l.retired_at IS NULL
  AND (:store_id::bigint IS NULL OR s.store_id = :store_id) AND (:skus::text[] IS NULL OR v.sku = ANY(:skus))
  AND (s.state = 'parked' OR s.state = 'waiting' AND EXISTS (
      SELECT FROM listing_wait w WHERE w.tenant_id = s.tenant_id AND w.listing_id = s.listing_id
        AND w.reason IN ('backoff', 'deferred', 'floor')))
ORDER BY s.listing_id LIMIT :limit
FOR NO KEY UPDATE OF s

-- name: retry_failed
-- They go among the retries: a parked one to be told its quantity, one that waited for what it waited to do.
WITH again AS MATERIALIZED (
    SELECT s.tenant_id, s.listing_id, s.state = 'parked' AS parked
    FROM listing_state s
    LEFT JOIN listing_wait w ON w.tenant_id = s.tenant_id AND w.listing_id = s.listing_id
    WHERE s.tenant_id = :tenant_id AND s.listing_id = ANY(:listing_ids::bigint[])
      AND (s.state = 'parked' OR s.state = 'waiting' AND w.reason IN ('backoff', 'deferred', 'floor'))
), gone AS (
    DELETE FROM listing_wait w USING again a
    WHERE w.tenant_id = a.tenant_id AND w.listing_id = a.listing_id AND w.reason IN ('parked', 'backoff', 'deferred', 'floor')
)
UPDATE listing_state s SET
    state = 'due', lane = :lane, due_for = CASE WHEN a.parked THEN 'push' ELSE s.due_for END,
    due_since = coalesce(s.due_since, now()), park_reason = NULL, park_retry_at = NULL
FROM again a
WHERE s.tenant_id = a.tenant_id AND s.listing_id = a.listing_id
RETURNING s.listing_id, s.store_id

-- name: count_due
-- By store, the listings that are due at this moment, and how many of them have failed before: there is nothing to retry
-- about them.
SELECT s.store_id, count(*) AS due, count(*) FILTER (WHERE s.attempts > 0) AS failing
FROM listing_state s
JOIN listing l ON l.tenant_id = s.tenant_id AND l.id = s.listing_id
JOIN variant v ON v.tenant_id = l.tenant_id AND v.id = l.variant_id
WHERE s.tenant_id = :tenant_id AND l.retired_at IS NULL AND s.state = 'due'
  AND (:store_id::bigint IS NULL OR s.store_id = :store_id) AND (:skus::text[] IS NULL OR v.sku = ANY(:skus))
GROUP BY s.store_id

-- name: count_idle
-- Listings that show their newest figure as far as we know, by store: what can be told again, or read back.
SELECT s.store_id, count(*) AS listings
FROM listing_state s
JOIN listing l ON l.tenant_id = s.tenant_id AND l.id = s.listing_id
JOIN variant v ON v.tenant_id = l.tenant_id AND v.id = l.variant_id
WHERE s.tenant_id = :tenant_id AND s.store_id = ANY(:store_ids::bigint[]) AND l.retired_at IS NULL
  AND (:skus::text[] IS NULL OR v.sku = ANY(:skus))
  AND s.state = 'idle' AND s.version_due > 0 AND s.version_delivered = s.version_due
GROUP BY s.store_id

-- name: mark_idle
-- A chunk of them becomes due. The rows are locked first, sorted, and only those that are still idle are changed. One that
-- will be confirmed is not read before: an unclear call may yet take effect. Listings that are due to be read already are
-- among them when they are to be read: what an unfinished look has left is corrected too by whoever asks for that, never
-- the other way round (record_states keeps that also for a reading that is under way). One that waits after a failed
-- reading goes on waiting.
WITH chunk AS MATERIALIZED (
    SELECT s.tenant_id, s.listing_id
    FROM listing_state s
    JOIN listing l ON l.tenant_id = s.tenant_id AND l.id = s.listing_id
    JOIN variant v ON v.tenant_id = l.tenant_id AND v.id = l.variant_id
    WHERE s.tenant_id = :tenant_id AND s.listing_id > :after AND s.store_id = ANY(:store_ids::bigint[])
      AND l.retired_at IS NULL AND (:skus::text[] IS NULL OR v.sku = ANY(:skus))
      AND (s.state = 'idle' AND s.version_due > 0 AND s.version_delivered = s.version_due
           AND (:due_for = 'push' OR s.doubtful_until IS NULL)
        OR s.state IN ('due', 'waiting') AND s.due_for IN ('reconcile', 'observe') AND :due_for IN ('reconcile', 'observe'))
    ORDER BY s.listing_id LIMIT :limit
    FOR NO KEY UPDATE OF s
)
UPDATE listing_state s SET
    state     = CASE WHEN s.state = 'idle' THEN 'due' ELSE s.state END,
    lane      = CASE WHEN s.state = 'idle' THEN :lane ELSE s.lane END,
    due_for   = CASE WHEN s.state <> 'idle' AND s.due_for = 'reconcile' THEN 'reconcile' ELSE :due_for END,
    due_since = CASE WHEN s.state = 'idle' THEN now() ELSE coalesce(s.due_since, now()) END
FROM chunk c
WHERE s.tenant_id = c.tenant_id AND s.listing_id = c.listing_id
RETURNING s.listing_id, s.store_id, s.version_due, now() AS marked_at

-- name: count_others
-- Listings of these stores that are not read back: busy with something else, or without a figure to compare with.
SELECT count(*) FILTER (WHERE s.state IN ('due', 'waiting') AND s.due_for NOT IN ('reconcile', 'observe')
                           OR s.state = 'idle' AND s.doubtful_until IS NOT NULL) AS busy,
       count(*) FILTER (WHERE s.state = 'parked') AS parked,
       count(*) FILTER (WHERE s.state IS NULL OR s.state = 'idle' AND (s.version_due = 0 OR s.version_delivered < s.version_due)) AS without
FROM listing l
LEFT JOIN listing_state s ON s.tenant_id = l.tenant_id AND s.listing_id = l.id
WHERE l.tenant_id = :tenant_id AND l.store_id = ANY(:store_ids::bigint[]) AND l.retired_at IS NULL

-- name: still_unread
SELECT s.listing_id FROM listing_state s
WHERE s.tenant_id = :tenant_id AND s.listing_id = ANY(:listing_ids::bigint[])
  AND s.state IN ('due', 'waiting') AND s.due_for IN ('reconcile', 'observe')

-- name: read_observed
-- What was read of each listing since it was marked. `changed`: something newer is to be shown by now.
SELECT s.listing_id, st.name AS store, v.sku, l.remote_variant, s.quantity_due, s.quantity_observed, s.last_message,
       s.version_due <> m.version AS changed, coalesce(s.observed_at >= m.marked_at, false) AS observed,
       s.state IN ('due', 'waiting') AND s.due_for IN ('reconcile', 'observe') AS unread
FROM unnest(:listing_ids::bigint[], :versions::bigint[], :marked_ats::timestamptz[]) AS m (listing_id, version, marked_at)
JOIN listing_state s ON s.tenant_id = :tenant_id AND s.listing_id = m.listing_id
JOIN listing l ON l.tenant_id = s.tenant_id AND l.id = s.listing_id
JOIN variant v ON v.tenant_id = l.tenant_id AND v.id = l.variant_id
JOIN store st ON st.tenant_id = s.tenant_id AND st.id = s.store_id
ORDER BY st.name, v.sku, s.listing_id

-- name: correct_down
-- A chunk of listings that show less than they should is told again, unless anything happened to them since.
WITH chunk AS MATERIALIZED (
    SELECT s.tenant_id, s.listing_id
    FROM unnest(:listing_ids::bigint[], :versions::bigint[]) AS m (listing_id, version)
    JOIN listing_state s ON s.tenant_id = :tenant_id AND s.listing_id = m.listing_id
    WHERE s.state = 'idle' AND s.version_due = m.version AND s.quantity_observed < s.quantity_due
    ORDER BY s.listing_id
    FOR NO KEY UPDATE OF s
)
UPDATE listing_state s SET state = 'due', lane = :lane, due_for = 'push', due_since = now()
FROM chunk c
WHERE s.tenant_id = c.tenant_id AND s.listing_id = c.listing_id
RETURNING s.listing_id, s.store_id

-- name: workers_live$
SELECT count(*) FROM live_worker

-- name: store_troubles
-- Why marketplaces cannot be reached now, by store.
SELECT s.name, l.trouble FROM store_lease l JOIN store s ON s.id = l.store_id
WHERE l.tenant_id = :tenant_id AND l.store_id = ANY(:store_ids::bigint[]) AND l.trouble IS NOT NULL
ORDER BY s.name
