-- What is due, and what became of it.

-- name: stores_with_work
-- Stores with something due (`due`) or a wait that is over (`ready`), or neither and tokens that would die unused; and
-- who holds them under which epoch, for how long yet if it is not renewed (0: over, as `claim` has it; NULL: nobody does).
-- Steps from store to store on the two indexes and looks at a store's first and last wait only, so that the cost grows with
-- the stores that have work, not with their listings. Stores that the caller is `working` for have something due, as it
-- knows: their part of the index, where everything that was due since the oldest snapshot began has left an entry, is
-- stepped over.
WITH RECURSIVE working AS MATERIALIZED (
    SELECT tenant_id, id AS store_id FROM store WHERE id = ANY(:working::bigint[])
), gap AS (
    SELECT tenant_id, store_id, lead(tenant_id, 1, 9223372036854775807) OVER o AS end_tenant_id,
           lead(store_id, 1, 0::bigint) OVER o AS end_store_id
    FROM (SELECT 0::bigint AS tenant_id, 0::bigint AS store_id UNION ALL SELECT tenant_id, store_id FROM working) begins
    WINDOW o AS (ORDER BY tenant_id, store_id)
), due AS (
    SELECT n.tenant_id, n.store_id, g.end_tenant_id, g.end_store_id FROM gap g CROSS JOIN LATERAL (
        SELECT tenant_id, store_id FROM listing_state
        WHERE lane > 0 AND (tenant_id, store_id) > (g.tenant_id, g.store_id)
          AND (tenant_id, store_id) < (g.end_tenant_id, g.end_store_id)
        ORDER BY tenant_id, store_id LIMIT 1) n
    UNION ALL
    SELECT n.tenant_id, n.store_id, d.end_tenant_id, d.end_store_id FROM due d CROSS JOIN LATERAL (
        SELECT tenant_id, store_id FROM listing_state
        WHERE lane > 0 AND (tenant_id, store_id) > (d.tenant_id, d.store_id)
          AND (tenant_id, store_id) < (d.end_tenant_id, d.end_store_id)
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
SELECT s.id AS store_id, bool_or(work.due) AS due, bool_or(work.ready) AS ready, l.worker_id, l.epoch,
       min(CASE WHEN h.id IS NULL OR h.stopping THEN NULL
           WHEN h.renewed_at > clock_timestamp() + l.lifetime_seconds * interval '1 second' THEN 0
           ELSE greatest(0, extract(epoch FROM h.renewed_at + l.lifetime_seconds * interval '1 second' - clock_timestamp()))
           END)::float8 AS held_seconds
FROM (SELECT tenant_id, store_id, true AS due, false AS ready FROM due
      UNION ALL SELECT tenant_id, store_id, true, false FROM working
      UNION ALL SELECT tenant_id, store_id, false, true FROM ready
      UNION ALL
      SELECT tenant_id, id, false, false FROM store
      WHERE refresh_expires_at IS NOT NULL AND retired_at IS NULL AND mode = 'live' AND access_expires_at < now()
        AND refresh_expires_at < now() + :renew_ahead_seconds::float8 * interval '1 second') work
JOIN store s ON s.tenant_id = work.tenant_id AND s.id = work.store_id
JOIN tenant t ON t.id = s.tenant_id
JOIN store_lease l ON l.store_id = s.id
LEFT JOIN worker h ON h.id = l.worker_id
WHERE s.mode = 'live' AND s.retired_at IS NULL AND t.disabled_at IS NULL
GROUP BY s.id, l.worker_id, l.epoch

-- name: release_waits
-- Brings back what has waited long enough: over, or further ahead than any wait can be (then the clock has jumped).
-- A store's waits are found by two ranges of the index on time, never by an OR over all of them.
-- Both rows are locked and decided upon as they are then, not as the statement's snapshot has them: a wait that was
-- put off meanwhile must stay. One that is being written is left for the next look. A confirmation of a listing that was
-- cleared, or told something when nothing was in doubt any more, is only dropped; so is the wait of a parked listing without a newer update,
-- which the next update then brings back at once.
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
    SELECT w.tenant_id, w.listing_id, w.reason,
           CASE w.reason WHEN 'confirmation' THEN s.state = 'idle' AND s.version_delivered = s.version_due AND s.doubtful_until IS NOT NULL
                         WHEN 'parked' THEN s.state = 'parked' AND s.version_due > s.version_settled
                         ELSE s.state = 'waiting' END AS again,
           CASE WHEN w.reason IN ('confirmation', 'parked') OR s.quantity_due = s.quantity_delivered THEN 3
                WHEN s.quantity_due = 0 OR s.quantity_due < s.quantity_delivered THEN 1
                ELSE 2 END + CASE WHEN s.attempts > 0 THEN 3 ELSE 0 END AS lane
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
    state         = CASE WHEN r.again THEN 'due' ELSE s.state END,
    lane          = CASE WHEN r.again THEN r.lane ELSE s.lane END,
    due_for       = CASE WHEN NOT r.again THEN s.due_for WHEN s.handle IS NOT NULL THEN 'ask'
                         WHEN r.reason = 'confirmation' THEN 'confirm' WHEN r.reason = 'parked' THEN 'push' ELSE s.due_for END,
    due_since     = CASE WHEN r.again THEN coalesce(s.due_since, now()) ELSE s.due_since END,
    park_reason   = CASE WHEN r.again THEN NULL ELSE s.park_reason END,
    park_retry_at = NULL
FROM ready r
WHERE s.tenant_id = r.tenant_id AND s.listing_id = r.listing_id AND (r.again OR r.reason = 'parked')
RETURNING s.store_id, s.listing_id, s.lane

-- name: due_window
-- Due listings of one live store, lane by lane from where the cursor stands, with what each is to show now: for the
-- holder of this epoch only. `locations` is null unless asked for.
-- The keys come first, from the index of the lanes alone, and only what they name is read: joined at once, all listings
-- below the cursor are read with them. The whole key is compared, so that no other index can serve: the primary key would
-- read everything above the cursor for a lane that has nothing due.
WITH named AS MATERIALIZED (
    SELECT s.address
    FROM unnest(:lanes::smallint[], :cursors::bigint[]) AS want (lane, cursor)
    CROSS JOIN LATERAL (
        SELECT s.ctid AS address FROM listing_state s
        WHERE s.tenant_id = :tenant_id AND s.store_id = :store_id AND s.lane = want.lane AND s.lane > 0
          AND (s.store_id, s.lane, s.listing_id) > (:store_id, want.lane, want.cursor)
          AND s.listing_id <> ALL(:busy::bigint[])
        ORDER BY s.listing_id LIMIT :limit
    ) s
    WHERE EXISTS (SELECT FROM store s JOIN tenant t ON t.id = s.tenant_id JOIN store_lease k ON k.store_id = s.id
                  WHERE s.tenant_id = :tenant_id AND s.id = :store_id AND s.mode = 'live' AND s.retired_at IS NULL
                    AND t.disabled_at IS NULL AND k.epoch = :epoch)
)
SELECT d.*
FROM named
CROSS JOIN LATERAL (
    SELECT d.listing_id, d.lane, d.due_for, d.version_due, d.quantity_due, d.attempts, d.remote_variant,
           d.quantity_delivered, d.quantity_floor, d.quantity_doubtful, d.quantity_expected, d.doubt_left_seconds,
           d.handle, d.handle_version, d.handle_quantity, d.handle_age_seconds,
           CASE WHEN :with_locations THEN d.locations END AS locations
    FROM due_listing d
    WHERE d.address = named.address
    OFFSET 0  -- one by one: not flattened into a join
) d
ORDER BY d.lane, d.listing_id

-- name: due_now
-- The same for listings that are named, of several stores at once, because they became due or were read a while ago: the
-- newest quantity at this moment, if they are due. `place`: of the name, from 1.
-- Keys are read backwards: while somebody holds a snapshot dead versions stay, and new ones come behind them once the
-- space of earlier ones is used up. A row that is updated often is then found at once instead of behind all that it was
-- before. A key of one listing is written as a range, for with an equation the order would mean nothing to the planner.
WITH named AS MATERIALIZED (
    SELECT * FROM unnest(:tenant_ids::bigint[], :store_ids::bigint[], :epochs::bigint[], :listing_ids::bigint[],
                         :with_locations::bool[])
        WITH ORDINALITY AS r (tenant_id, store_id, epoch, listing_id, with_locations, place)
), held AS MATERIALIZED (
    SELECT r.tenant_id, r.store_id, r.epoch
    FROM (SELECT DISTINCT tenant_id, store_id, epoch FROM named) r
    WHERE EXISTS (SELECT FROM store s JOIN tenant t ON t.id = s.tenant_id JOIN store_lease k ON k.store_id = s.id
                  WHERE s.tenant_id = r.tenant_id AND s.id = r.store_id AND s.mode = 'live' AND s.retired_at IS NULL
                    AND t.disabled_at IS NULL AND k.epoch = r.epoch)
)
SELECT named.place, d.*
FROM named
JOIN held ON held.tenant_id = named.tenant_id AND held.store_id = named.store_id AND held.epoch = named.epoch
CROSS JOIN LATERAL (
    SELECT s.ctid AS address FROM listing_state s
    WHERE s.tenant_id = named.tenant_id AND s.listing_id >= named.listing_id AND s.listing_id <= named.listing_id
    ORDER BY s.listing_id DESC LIMIT 1
) s
CROSS JOIN LATERAL (
    SELECT d.listing_id, d.lane, d.due_for, d.version_due, d.quantity_due, d.attempts, d.remote_variant,
           d.quantity_delivered, d.quantity_floor, d.quantity_doubtful, d.quantity_expected, d.doubt_left_seconds,
           d.handle, d.handle_version, d.handle_quantity, d.handle_age_seconds,
           CASE WHEN named.with_locations THEN d.locations END AS locations
    FROM due_listing d
    WHERE d.address = s.address AND d.store_id = named.store_id
    OFFSET 0
) d
ORDER BY named.place

-- name: lock_results
-- Step 1 of recording: the listings' rows, sorted, of the results whose lease still has the epoch under which they were
-- made. The lease cannot change hands before this transaction ends. Results that do not come back are dropped. Each row is
-- locked as it is found, the newest version first (see due_now).
SELECT r.tenant_id, r.listing_id, r.epoch, s.version_settled
FROM (
    SELECT r.tenant_id, r.listing_id, l.epoch
    FROM unnest(:tenant_ids::bigint[], :listing_ids::bigint[], :store_ids::bigint[], :epochs::bigint[])
         AS r (tenant_id, listing_id, store_id, epoch)
    JOIN store_lease l ON l.store_id = r.store_id AND l.epoch = r.epoch
    ORDER BY r.tenant_id, r.listing_id
    FOR SHARE OF l
) r
CROSS JOIN LATERAL (
    SELECT s.version_settled FROM listing_state s
    WHERE s.tenant_id = r.tenant_id AND s.listing_id >= r.listing_id AND s.listing_id <= r.listing_id
    ORDER BY s.listing_id DESC LIMIT 1
    FOR NO KEY UPDATE
) s

-- name: take_call_ids
SELECT nextval('call_seq') AS id FROM generate_series(1, :count::int)

-- name: record_states!
-- Only of rows that lock_results has locked in this transaction: they are found where they lie, and lie still.
-- kind       after it the listing ...
-- delivered  is idle                                         floored, floor  waits for the rest (told the least, or not)
-- retry      waits, and an attempt is counted                again           stays due, and an attempt is counted
-- defer      waits                                           stay            stays due: the store waits
-- submitted  waits, with the handle to ask with              parked          is parked
-- settled    is idle: it was read back                       correct         is due again: it was read back
-- A listing that was cleared meanwhile keeps its state; one that has a newer version by now stays due after what ended
-- the older one. What was read back counts only while nothing newer is to be told, and where correcting was asked for while a
-- mere look was under way, what shows too much is read again. Which of delivered_at and observed_at
-- is the later one says what is believed to be shown, also after the clock has jumped back. A doubt further ahead than any
-- can be was written before that. A floor is not remembered over a wait, unless it was submitted: by then it may be above
-- what is shown.
WITH r AS (
    SELECT * FROM unnest(
        :tenant_ids::bigint[], :listing_ids::bigint[], :versions::bigint[], :quantities::bigint[], :kinds::text[],
        :outcomes::text[], :messages::text[], :calls::int[], :doubts::text[], :doubt_seconds::float8[], :due_fors::text[],
        :handles::text[], :floors::bigint[], :were_observed::bool[], :observed::bigint[], :lanes::smallint[])
    AS r (tenant_id, listing_id, version, quantity, kind, outcome, message, calls, doubt, doubt_seconds, due_for, handle,
          floor, was_observed, observed, lane)
), n AS (
    SELECT r.*,
           CASE WHEN s.state <> 'due' THEN s.state
                WHEN r.kind IN ('stay', 'again', 'correct') THEN 'due'
                WHEN r.kind IN ('delivered', 'floored', 'floor') AND s.version_due > r.version THEN 'due'
                WHEN r.kind = 'settled' AND (s.due_for = 'push' OR s.due_for = 'reconcile' AND r.observed > s.quantity_due) THEN 'due'
                WHEN r.kind IN ('delivered', 'settled') THEN 'idle'
                WHEN r.kind = 'parked' THEN 'parked'
                ELSE 'waiting' END AS state,
           r.kind IN ('delivered', 'floored') AS told,
           CASE WHEN s.doubtful_until IS NOT NULL
                THEN least(s.doubtful_until, now() + :doubt_seconds_max * interval '1 second') END AS doubtful_until,
           CASE WHEN r.kind IN ('retry', 'again') THEN s.attempts + 1
                WHEN r.kind IN ('stay', 'defer', 'submitted') THEN s.attempts ELSE 0 END AS attempts,
           s.address
    FROM r CROSS JOIN LATERAL (
        SELECT s.*, s.ctid AS address FROM listing_state s
        WHERE s.tenant_id = r.tenant_id AND s.listing_id >= r.listing_id AND s.listing_id <= r.listing_id
        ORDER BY s.listing_id DESC LIMIT 1
    ) s
)
UPDATE listing_state s SET
    calls              = s.calls + n.calls,
    version_delivered  = CASE WHEN n.kind = 'delivered' THEN greatest(s.version_delivered, n.version) ELSE s.version_delivered END,
    version_settled    = CASE WHEN n.kind IN ('delivered', 'parked') THEN greatest(s.version_settled, n.version) ELSE s.version_settled END,
    quantity_delivered = CASE WHEN n.told THEN n.quantity ELSE s.quantity_delivered END,
    delivered_at       = CASE WHEN n.told THEN greatest(now(), s.observed_at) ELSE s.delivered_at END,
    quantity_observed  = CASE WHEN n.was_observed THEN n.observed ELSE s.quantity_observed END,
    observed_at        = CASE WHEN n.was_observed THEN greatest(now(), s.delivered_at + interval '1 microsecond')
                              ELSE s.observed_at END,
    quantity_floor     = CASE WHEN n.floor IS NULL AND (n.kind IN ('stay', 'again') OR n.handle IS NOT NULL)
                              THEN s.quantity_floor ELSE n.floor END,
    attempts           = n.attempts,
    failing_since      = CASE WHEN n.attempts > 0 THEN coalesce(s.failing_since, now()) END,
    quantity_doubtful  = CASE n.doubt WHEN 'clear' THEN NULL WHEN 'unknown' THEN NULL WHEN 'keep' THEN s.quantity_doubtful
                              ELSE CASE WHEN s.doubtful_until IS NULL OR s.doubtful_until < now() OR s.quantity_doubtful = n.quantity
                                        THEN n.quantity END END,
    doubtful_until     = CASE n.doubt WHEN 'clear' THEN NULL WHEN 'keep' THEN n.doubtful_until
                              ELSE greatest(n.doubtful_until, now() + n.doubt_seconds * interval '1 second') END,
    last_outcome       = n.outcome,
    last_message       = n.message,
    handle             = n.handle,
    handle_version     = CASE WHEN n.handle IS NOT NULL THEN n.version END,
    handle_quantity    = CASE WHEN n.handle IS NOT NULL THEN n.quantity END,
    handle_at          = CASE WHEN n.handle IS NOT NULL THEN CASE WHEN s.handle IS NULL THEN now() ELSE s.handle_at END END,
    due_for            = CASE WHEN n.handle IS NOT NULL THEN 'ask' WHEN s.due_for IN ('push', 'ask') THEN 'push'
                              WHEN s.due_for = 'reconcile' AND (n.due_for = 'observe' OR n.kind = 'settled' AND n.state = 'due')
                                  THEN 'reconcile' ELSE n.due_for END,
    due_since          = CASE WHEN n.state = 'idle' THEN NULL WHEN n.kind = 'delivered' THEN now() ELSE coalesce(s.due_since, now()) END,
    state              = n.state,
    lane               = CASE WHEN n.state <> 'due' THEN 0
                              WHEN n.told AND s.quantity_due = n.quantity THEN 3
                              WHEN n.told AND (s.quantity_due = 0 OR s.quantity_due < n.quantity) THEN 1
                              WHEN n.told THEN 2
                              WHEN n.kind = 'correct' AND s.due_for <> 'push' THEN n.lane
                              WHEN n.attempts = 0 AND s.lane > 3 THEN s.lane - 3
                              ELSE s.lane END,
    park_reason        = CASE WHEN n.state <> 'parked' THEN NULL WHEN s.state = 'parked' THEN s.park_reason ELSE n.message END,
    parked_at          = CASE WHEN n.state = 'parked' AND s.state <> 'parked' THEN now() ELSE s.parked_at END,
    park_retry_at      = CASE WHEN n.state <> 'parked' THEN NULL WHEN s.state = 'parked' THEN s.park_retry_at
                              ELSE now() + :park_retry_seconds * interval '1 second' END
FROM n
WHERE s.ctid = n.address

-- name: settle_items
-- Ends the open items up to a version, as delivered or as failed, and returns them. Records are locked in order of their
-- keys.
WITH settled AS (
    SELECT c.tenant_id, c.item_created_at, c.version, c.item_id, r.success, r.message, r.answer, r.call_id,
           greatest(0, s.calls - c.calls_before - 1) AS retries
    FROM unnest(:tenant_ids::bigint[], :listing_ids::bigint[], :versions::bigint[], :settled_before::bigint[],
                :success::bool[], :messages::text[], :answers::text[], :call_ids::bigint[])
         AS r (tenant_id, listing_id, version, settled_before, success, message, answer, call_id)
    CROSS JOIN LATERAL (
        SELECT s.store_id, s.calls FROM listing_state s
        WHERE s.tenant_id = r.tenant_id AND s.listing_id >= r.listing_id AND s.listing_id <= r.listing_id
        ORDER BY s.listing_id DESC LIMIT 1
    ) s
    JOIN store_warehouse w ON w.tenant_id = r.tenant_id AND w.store_id = s.store_id  -- retired ones too
    CROSS JOIN LATERAL (
        SELECT c.* FROM contribution c
        WHERE c.tenant_id = r.tenant_id AND c.listing_id = r.listing_id
          AND c.warehouse_id >= w.warehouse_id AND c.warehouse_id <= w.warehouse_id
        ORDER BY c.warehouse_id DESC LIMIT 1
    ) c
    WHERE c.item_id IS NOT NULL AND c.version <= r.version AND c.version > r.settled_before
), ended AS (
    UPDATE item i SET success = d.success, message = d.message, client_response = d.answer, call_id = d.call_id,
                      retries = d.retries, finished_at = clock_timestamp()
    FROM settled d
    WHERE i.tenant_id = d.tenant_id AND i.created_at = d.item_created_at AND i.update_id = d.version AND i.id = d.item_id
      AND i.finished_at IS NULL
    RETURNING i.tenant_id, i.created_at, i.update_id, i.store_id, i.listing_id, i.success, i.message, i.retries, i.finished_at
), tally AS (
    SELECT tenant_id, created_at, update_id, count(*) AS n FROM ended GROUP BY 1, 2, 3
), locked AS MATERIALIZED (
    SELECT u.tenant_id, u.created_at, u.id, u.transaction_code, t.n
    FROM tally t JOIN stock_update u ON u.tenant_id = t.tenant_id AND u.created_at = t.created_at AND u.id = t.update_id
    ORDER BY 1, 2, 3
    FOR NO KEY UPDATE OF u
), counted AS (
    UPDATE stock_update u
    SET items_open = u.items_open - l.n, updated_at = clock_timestamp(),
        finished_at = CASE WHEN u.items_open = l.n THEN clock_timestamp() END
    FROM locked l
    WHERE u.tenant_id = l.tenant_id AND u.created_at = l.created_at AND u.id = l.id
)
SELECT e.tenant_id, e.store_id, e.listing_id, e.success, e.message, e.retries, l.transaction_code,
       extract(epoch FROM e.finished_at - e.created_at)::float8 AS latency_seconds
FROM ended e JOIN locked l ON l.tenant_id = e.tenant_id AND l.created_at = e.created_at AND l.id = e.update_id

-- name: open_transactions
-- The transactions whose items of a listing are open: for the log of attempts that failed.
SELECT c.tenant_id, c.listing_id, array_agg(DISTINCT u.transaction_code) AS codes
FROM unnest(:tenant_ids::bigint[], :listing_ids::bigint[]) AS r (tenant_id, listing_id)
JOIN listing_state s ON s.tenant_id = r.tenant_id AND s.listing_id = r.listing_id
JOIN contribution c ON c.tenant_id = r.tenant_id AND c.listing_id = r.listing_id
JOIN stock_update u ON u.tenant_id = c.tenant_id AND u.created_at = c.item_created_at AND u.id = c.version
WHERE c.item_id IS NOT NULL AND c.version > s.version_settled
GROUP BY c.tenant_id, c.listing_id

-- name: write_waits!
INSERT INTO listing_wait (tenant_id, listing_id, store_id, reason, due_at)
SELECT r.tenant_id, r.listing_id, r.store_id, r.reason, now() + r.seconds * interval '1 second'
FROM unnest(:tenant_ids::bigint[], :listing_ids::bigint[], :store_ids::bigint[], :reasons::text[], :seconds::float8[])
     AS r (tenant_id, listing_id, store_id, reason, seconds)
ORDER BY 1, 2
ON CONFLICT (tenant_id, listing_id) DO UPDATE SET reason = EXCLUDED.reason, due_at = EXCLUDED.due_at

-- name: write_calls!
INSERT INTO call (tenant_id, created_at, id, store_id, epoch, listing_ids, method, url, request, status, response, outcome, duration_ms)
SELECT r.tenant_id, now(), r.id, r.store_id, r.epoch, r.listing_ids::bigint[], r.method, r.url, r.request, r.status,
       r.response, r.outcome, r.duration_ms
FROM unnest(:tenant_ids::bigint[], :ids::bigint[], :store_ids::bigint[], :epochs::bigint[], :listing_ids::text[],
            :methods::text[], :urls::text[], :requests::text[], :statuses::smallint[], :responses::text[],
            :outcomes::text[], :durations_ms::real[])
     AS r (tenant_id, id, store_id, epoch, listing_ids, method, url, request, status, response, outcome, duration_ms)

-- name: transaction_id$
SELECT pg_current_xact_id()::text

-- name: transaction_status$
-- After a COMMIT whose answer was lost: committed, aborted, in progress, or null when it is too long ago to tell.
SELECT pg_xact_status(:transaction_id::text::xid8)

-- name: unpark!
-- A storm: these were parked, but it was the store. Only by the holder of this epoch.
WITH back AS (
    UPDATE listing_state s SET state = 'due', lane = 3, due_for = 'push', due_since = coalesce(s.due_since, now()),
                               park_reason = NULL, park_retry_at = NULL
    WHERE s.tenant_id = :tenant_id AND s.listing_id = ANY(:listing_ids::bigint[]) AND s.state = 'parked'
      AND EXISTS (SELECT FROM store_lease l WHERE l.store_id = s.store_id AND l.epoch = :epoch)
    RETURNING s.tenant_id, s.listing_id
)
DELETE FROM listing_wait w USING back
WHERE w.tenant_id = back.tenant_id AND w.listing_id = back.listing_id AND w.reason = 'parked'
