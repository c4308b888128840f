-- What is due, and what became of it.

-- name: stores_with_work
-- Stores with something due or a wait that is over. Steps from store to store on the two indexes and looks at a store's
-- first and last wait only, so that the cost grows with the stores that have work, not with their listings.
WITH RECURSIVE due AS (
    (SELECT tenant_id, store_id FROM listing_state WHERE lane > 0 ORDER BY tenant_id, store_id LIMIT 1)
    UNION ALL
    SELECT n.tenant_id, n.store_id FROM due d CROSS JOIN LATERAL (
        SELECT tenant_id, store_id FROM listing_state
        WHERE lane > 0 AND (tenant_id, store_id) > (d.tenant_id, d.store_id)
        ORDER BY tenant_id, store_id LIMIT 1) n
), waiting AS (
    (SELECT tenant_id, store_id FROM listing_wait ORDER BY tenant_id, store_id LIMIT 1)
    UNION ALL
    SELECT n.tenant_id, n.store_id FROM waiting w CROSS JOIN LATERAL (
        SELECT tenant_id, store_id FROM listing_wait
        WHERE (tenant_id, store_id) > (w.tenant_id, w.store_id)
        ORDER BY tenant_id, store_id LIMIT 1) n
), ready AS (
    SELECT tenant_id, store_id FROM waiting w
    WHERE (SELECT min(due_at) FROM listing_wait l WHERE l.tenant_id = w.tenant_id AND l.store_id = w.store_id) <= now()
       OR (SELECT max(due_at) FROM listing_wait l WHERE l.tenant_id = w.tenant_id AND l.store_id = w.store_id)
          > now() + :wait_seconds_max * interval '1 second'
)
SELECT s.id AS store_id
FROM (SELECT * FROM due UNION SELECT * FROM ready) work
JOIN store s ON s.tenant_id = work.tenant_id AND s.id = work.store_id
JOIN tenant t ON t.id = s.tenant_id
WHERE s.mode = 'live' AND s.retired_at IS NULL AND t.disabled_at IS NULL

-- name: release_waits
-- Brings back what has waited long enough: over, or further ahead than any wait can be (then the clock has jumped).
-- A store's waits are found by two ranges of the index on time, never by an OR over all of them.
-- Both rows are locked and decided upon as they are then, not as the statement's snapshot has them: a wait that was
-- put off meanwhile must stay. One that is being written is left for the next look. A confirmation of a listing that was
-- cleared since (its newest version was never told) is only dropped.
WITH found AS MATERIALIZED (
    SELECT l.tenant_id, l.listing_id
    FROM unnest(:store_ids::bigint[]) AS mine (id)
    JOIN store ON store.id = mine.id
    CROSS JOIN LATERAL (
        (SELECT tenant_id, listing_id FROM listing_wait
         WHERE tenant_id = store.tenant_id AND store_id = store.id AND due_at <= now()
         ORDER BY due_at LIMIT :limit)
        UNION ALL
        (SELECT tenant_id, listing_id FROM listing_wait
         WHERE tenant_id = store.tenant_id AND store_id = store.id
           AND due_at > now() + :wait_seconds_max * interval '1 second'
         ORDER BY due_at LIMIT :limit)
    ) l
    LIMIT :limit
), ready AS MATERIALIZED (
    SELECT w.tenant_id, w.listing_id,
           CASE w.reason WHEN 'confirmation' THEN s.state = 'idle' AND s.version_delivered = s.version_due
                         WHEN 'parked' THEN s.state = 'parked' AND s.version_due > s.version_settled
                         ELSE s.state = 'waiting' END AS again,
           w.reason IN ('confirmation', 'parked') AS refresh
    FROM found
    JOIN listing_wait w ON w.tenant_id = found.tenant_id AND w.listing_id = found.listing_id
    JOIN listing_state s ON s.tenant_id = w.tenant_id AND s.listing_id = w.listing_id
    WHERE w.due_at <= now() OR w.due_at > now() + :wait_seconds_max * interval '1 second'
    ORDER BY w.tenant_id, w.listing_id
    FOR NO KEY UPDATE OF s, w SKIP LOCKED
), gone AS (
    DELETE FROM listing_wait w USING ready r WHERE w.tenant_id = r.tenant_id AND w.listing_id = r.listing_id
)
UPDATE listing_state s SET
    state = 'due',
    lane = CASE WHEN r.refresh OR s.quantity_due = s.quantity_delivered THEN 3
                WHEN s.quantity_due = 0 OR s.quantity_due < s.quantity_delivered THEN 1
                ELSE 2 END,
    park_reason = NULL
FROM ready r
WHERE s.tenant_id = r.tenant_id AND s.listing_id = r.listing_id AND r.again
RETURNING s.store_id

-- name: due_window
-- Due listings of one live store, lane by lane from where the cursor stands, with what each is to show now. `locations`
-- is null unless asked for.
SELECT s.listing_id, s.lane, s.version_due, s.quantity_due, s.attempts, l.remote_variant,
       extract(epoch FROM now() - s.doubtful_at)::float8 AS doubtful_age_seconds,
       CASE WHEN :with_locations THEN (
           SELECT jsonb_object_agg(c.location, c.quantity) FROM (
               SELECT location, sum(quantity) AS quantity FROM contribution c
               WHERE c.tenant_id = s.tenant_id AND c.listing_id = s.listing_id AND location IS NOT NULL
               GROUP BY location) c) END AS locations
FROM unnest(:lanes::smallint[], :cursors::bigint[]) AS want (lane, cursor)
CROSS JOIN LATERAL (
    SELECT * FROM listing_state s
    WHERE s.tenant_id = :tenant_id AND s.store_id = :store_id AND s.lane = want.lane AND s.lane > 0
      AND s.listing_id > want.cursor AND s.listing_id <> ALL(:busy::bigint[])
    ORDER BY s.listing_id LIMIT :limit
) s
JOIN listing l ON l.tenant_id = s.tenant_id AND l.id = s.listing_id
WHERE EXISTS (SELECT FROM store JOIN tenant t ON t.id = store.tenant_id
              WHERE store.tenant_id = :tenant_id AND store.id = :store_id AND store.mode = 'live'
                AND store.retired_at IS NULL AND t.disabled_at IS NULL)

-- name: due_now
-- The same for listings that were read a while ago: the newest quantity at this moment, if they are still due.
SELECT s.listing_id, s.lane, s.version_due, s.quantity_due, s.attempts, l.remote_variant,
       extract(epoch FROM now() - s.doubtful_at)::float8 AS doubtful_age_seconds,
       CASE WHEN :with_locations THEN (
           SELECT jsonb_object_agg(c.location, c.quantity) FROM (
               SELECT location, sum(quantity) AS quantity FROM contribution c
               WHERE c.tenant_id = s.tenant_id AND c.listing_id = s.listing_id AND location IS NOT NULL
               GROUP BY location) c) END AS locations
FROM listing_state s
JOIN listing l ON l.tenant_id = s.tenant_id AND l.id = s.listing_id
WHERE s.tenant_id = :tenant_id AND s.store_id = :store_id AND s.listing_id = ANY(:listing_ids::bigint[]) AND s.lane > 0
  AND EXISTS (SELECT FROM store JOIN tenant t ON t.id = store.tenant_id
              WHERE store.tenant_id = :tenant_id AND store.id = :store_id AND store.mode = 'live'
                AND store.retired_at IS NULL AND t.disabled_at IS NULL)
ORDER BY array_position(:listing_ids::bigint[], s.listing_id)

-- name: lock_results
-- Step 1 of recording: the listings' rows, sorted, of the results whose lease still has the epoch under which they were
-- made. The lease cannot change hands before this transaction ends. Results that do not come back are dropped.
SELECT s.tenant_id, s.listing_id, l.epoch, s.version_settled
FROM unnest(:tenant_ids::bigint[], :listing_ids::bigint[], :store_ids::bigint[], :epochs::bigint[])
     AS r (tenant_id, listing_id, store_id, epoch)
JOIN store_lease l ON l.store_id = r.store_id AND l.epoch = r.epoch
JOIN listing_state s ON s.tenant_id = r.tenant_id AND s.listing_id = r.listing_id
ORDER BY s.tenant_id, s.listing_id
FOR NO KEY UPDATE OF s FOR SHARE OF l

-- name: take_call_ids
SELECT nextval('call_seq') AS id FROM generate_series(1, :count::int)

-- name: record_states!
-- kind: delivered, retry (waits, and an attempt is counted), defer (waits), stay (the store waits, the listing stays due),
-- parked. A listing that was cleared meanwhile keeps its state; so does a delivered one that has a newer version by now.
UPDATE listing_state s SET
    calls              = s.calls + 1,
    version_delivered  = CASE WHEN r.kind = 'delivered' THEN greatest(s.version_delivered, r.version) ELSE s.version_delivered END,
    version_settled    = CASE WHEN r.kind IN ('delivered', 'parked') THEN greatest(s.version_settled, r.version) ELSE s.version_settled END,
    quantity_delivered = CASE WHEN r.kind = 'delivered' THEN r.quantity ELSE s.quantity_delivered END,
    delivered_at       = CASE WHEN r.kind = 'delivered' THEN now() ELSE s.delivered_at END,
    attempts           = CASE r.kind WHEN 'retry' THEN s.attempts + 1 WHEN 'stay' THEN s.attempts WHEN 'defer' THEN s.attempts ELSE 0 END,
    quantity_doubtful  = CASE WHEN r.doubtful THEN r.quantity WHEN r.kind = 'delivered' AND r.wait_seconds IS NULL THEN NULL ELSE s.quantity_doubtful END,
    doubtful_at        = CASE WHEN r.doubtful THEN now()      WHEN r.kind = 'delivered' AND r.wait_seconds IS NULL THEN NULL ELSE s.doubtful_at END,
    last_outcome       = r.outcome,
    last_message       = r.message,
    state              = CASE WHEN s.state <> 'due' OR r.kind = 'stay' THEN s.state
                              WHEN r.kind = 'delivered' AND s.version_due > r.version THEN s.state
                              WHEN r.kind = 'delivered' THEN 'idle' WHEN r.kind IN ('retry', 'defer') THEN 'waiting' ELSE 'parked' END,
    lane               = CASE WHEN s.state <> 'due' OR r.kind = 'stay' OR (r.kind = 'delivered' AND s.version_due > r.version)
                              THEN s.lane ELSE 0 END,
    park_reason        = CASE WHEN s.state = 'due' AND r.kind = 'parked' THEN r.message ELSE s.park_reason END,
    parked_at          = CASE WHEN s.state = 'due' AND r.kind = 'parked' THEN now() ELSE s.parked_at END
FROM unnest(:tenant_ids::bigint[], :listing_ids::bigint[], :versions::bigint[], :quantities::bigint[], :kinds::text[],
            :outcomes::text[], :messages::text[], :doubtful::bool[], :wait_seconds::float8[])
     AS r (tenant_id, listing_id, version, quantity, kind, outcome, message, doubtful, wait_seconds)
WHERE s.tenant_id = r.tenant_id AND s.listing_id = r.listing_id

-- name: settle_items!
-- Ends the open items up to a version: as delivered, or as failed. Records are locked in order of their keys.
WITH settled AS (
    SELECT c.tenant_id, c.item_created_at, c.version, c.item_id, r.success, r.message, r.answer, r.call_id,
           greatest(0, s.calls - c.calls_before - 1) AS retries
    FROM unnest(:tenant_ids::bigint[], :listing_ids::bigint[], :versions::bigint[], :settled_before::bigint[],
                :success::bool[], :messages::text[], :answers::text[], :call_ids::bigint[])
         AS r (tenant_id, listing_id, version, settled_before, success, message, answer, call_id)
    JOIN contribution c ON c.tenant_id = r.tenant_id AND c.listing_id = r.listing_id
    JOIN listing_state s ON s.tenant_id = r.tenant_id AND s.listing_id = r.listing_id
    WHERE c.item_id IS NOT NULL AND c.version <= r.version AND c.version > r.settled_before
), ended AS (
    UPDATE item i SET success = d.success, message = d.message, client_response = d.answer, call_id = d.call_id,
                      retries = d.retries, finished_at = clock_timestamp()
    FROM settled d
    WHERE i.tenant_id = d.tenant_id AND i.created_at = d.item_created_at AND i.update_id = d.version AND i.id = d.item_id
      AND i.finished_at IS NULL
    RETURNING i.tenant_id, i.created_at, i.update_id
), tally AS (
    SELECT tenant_id, created_at, update_id, count(*) AS n FROM ended GROUP BY 1, 2, 3
), locked AS MATERIALIZED (
    SELECT u.tenant_id, u.created_at, u.id, t.n
    FROM tally t JOIN stock_update u ON u.tenant_id = t.tenant_id AND u.created_at = t.created_at AND u.id = t.update_id
    ORDER BY 1, 2, 3
    FOR NO KEY UPDATE OF u
)
UPDATE stock_update u
SET items_open = u.items_open - l.n, updated_at = clock_timestamp(),
    finished_at = CASE WHEN u.items_open = l.n THEN clock_timestamp() END
FROM locked l
WHERE u.tenant_id = l.tenant_id AND u.created_at = l.created_at AND u.id = l.id

-- name: write_waits!
INSERT INTO listing_wait (tenant_id, listing_id, store_id, reason, due_at)
SELECT r.tenant_id, r.listing_id, r.store_id, r.reason, now() + r.seconds * interval '1 second'
FROM unnest(:tenant_ids::bigint[], :listing_ids::bigint[], :store_ids::bigint[], :reasons::text[], :seconds::float8[])
     AS r (tenant_id, listing_id, store_id, reason, seconds)
ORDER BY 1, 2
ON CONFLICT (tenant_id, listing_id) DO UPDATE SET reason = EXCLUDED.reason, due_at = EXCLUDED.due_at, handle = NULL

-- name: write_calls!
INSERT INTO call (tenant_id, created_at, id, store_id, epoch, listing_ids, method, url, request, status, response, outcome, duration_ms)
SELECT r.tenant_id, now(), r.id, r.store_id, r.epoch, r.listing_ids::bigint[], r.method, r.url, r.request, r.status,
       r.response, r.outcome, r.duration_ms
FROM unnest(:tenant_ids::bigint[], :ids::bigint[], :store_ids::bigint[], :epochs::bigint[], :listing_ids::text[],
            :methods::text[], :urls::text[], :requests::text[], :statuses::smallint[], :responses::text[],
            :outcomes::text[], :durations_ms::real[])
     AS r (tenant_id, id, store_id, epoch, listing_ids, method, url, request, status, response, outcome, duration_ms)

-- name: call_was_written$
-- After a COMMIT whose answer was lost: did the results that came with this call take effect?
SELECT EXISTS (SELECT FROM call WHERE tenant_id = :tenant_id AND created_at > now() - interval '1 hour' AND id = :id)
