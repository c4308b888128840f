-- Accepting updates. The order of the statements is part of the algorithm: see inventory/stock.py.

-- name: create_variants!
-- For tenants that want unknown SKUs made. Those that exist are not touched: they are locked afterwards, in order of
-- their ids. DO UPDATE takes the row's lock where DO NOTHING would take none.
INSERT INTO variant (tenant_id, sku)
SELECT DISTINCT tenant_id, sku
FROM unnest(:tenant_ids::bigint[], :skus::text[]) AS r (tenant_id, sku)
WHERE NOT EXISTS (SELECT FROM variant v WHERE v.tenant_id = r.tenant_id AND v.sku = r.sku)
ORDER BY tenant_id, sku
ON CONFLICT (tenant_id, sku) DO UPDATE SET sku = EXCLUDED.sku

-- name: lock_variants
-- Step 1: the one lock, sorted, in a statement of its own: what is read afterwards sees everything that the earlier
-- holders wrote. FOR NO KEY UPDATE lets foreign keys be checked meanwhile.
SELECT v.tenant_id, v.id, v.sku
FROM variant v
WHERE (v.tenant_id, v.sku) IN (SELECT * FROM unnest(:tenant_ids::bigint[], :skus::text[])) AND v.retired_at IS NULL
ORDER BY v.tenant_id, v.id
FOR NO KEY UPDATE OF v

-- name: lock_variants_by_id
SELECT v.tenant_id, v.id, v.sku
FROM variant v
WHERE v.tenant_id = :tenant_id AND v.id = ANY(:ids::bigint[])
ORDER BY v.tenant_id, v.id
FOR NO KEY UPDATE OF v

-- name: find_warehouses
SELECT w.tenant_id, w.id, w.name
FROM warehouse w
WHERE (w.tenant_id, w.name) IN (SELECT * FROM unnest(:tenant_ids::bigint[], :names::text[])) AND w.retired_at IS NULL

-- name: find_tenants
SELECT id, name, unknown_sku, channel_stock_limit FROM tenant WHERE id = ANY(:ids::bigint[])

-- name: count_unknown_skus!
INSERT INTO unknown_sku (tenant_id, sku, times, first_at, last_at)
SELECT tenant_id, sku, count(*), now(), now()
FROM unnest(:tenant_ids::bigint[], :skus::text[]) AS r (tenant_id, sku)
GROUP BY tenant_id, sku
ORDER BY tenant_id, sku
ON CONFLICT (tenant_id, sku) DO UPDATE SET times = unknown_sku.times + EXCLUDED.times, last_at = EXCLUDED.last_at

-- name: claim_idempotency_keys
-- Remembers each key, or returns what it stands for. The row's lock makes a second request with the same key wait for
-- the first one's commit.
INSERT INTO idempotency_key AS k (tenant_id, partner_id, key, body_hash, transaction_code, created_at)
SELECT r.*, clock_timestamp()
FROM unnest(:tenant_ids::bigint[], :partner_ids::text[], :keys::text[], :body_hashes::bytea[], :codes::uuid[])
     AS r (tenant_id, partner_id, key, body_hash, code)
ORDER BY 1, 2, 3
ON CONFLICT (tenant_id, partner_id, key) DO UPDATE SET
    body_hash        = CASE WHEN k.created_at > now() - :seconds * interval '1 second' THEN k.body_hash        ELSE EXCLUDED.body_hash        END,
    transaction_code = CASE WHEN k.created_at > now() - :seconds * interval '1 second' THEN k.transaction_code ELSE EXCLUDED.transaction_code END,
    created_at       = CASE WHEN k.created_at > now() - :seconds * interval '1 second' THEN k.created_at       ELSE EXCLUDED.created_at       END
RETURNING tenant_id, partner_id, key, body_hash, transaction_code

-- name: forget_idempotency_keys!
DELETE FROM idempotency_key WHERE created_at < now() - :seconds * interval '1 second'

-- name: read_levels
-- The newest version of each row first: see due_now.
SELECT l.tenant_id, l.variant_id, l.warehouse_id, l.available, l.buffer, l.reserved, l.sync, l.newest_as_of
FROM unnest(:tenant_ids::bigint[], :variant_ids::bigint[]) AS r (tenant_id, variant_id)
JOIN warehouse w ON w.tenant_id = r.tenant_id  -- retired ones too
CROSS JOIN LATERAL (
    SELECT l.* FROM stock_level l
    WHERE l.tenant_id = r.tenant_id AND l.variant_id = r.variant_id AND l.warehouse_id >= w.id AND l.warehouse_id <= w.id
    ORDER BY l.warehouse_id DESC LIMIT 1
) l

-- name: read_figures
SELECT f.tenant_id, f.variant_id, f.warehouse_id, f.channel, f.figure, f.named
FROM channel_stock f
WHERE (f.tenant_id, f.variant_id) IN (SELECT * FROM unnest(:tenant_ids::bigint[], :variant_ids::bigint[]))

-- name: read_listings
-- The live listings of locked variants: who serves their stores, what was last delivered.
SELECT l.tenant_id, l.variant_id, l.id, l.store_id, s.channel,
       t.quantity_delivered, coalesce(t.version_settled, 0) AS version_settled, coalesce(t.calls, 0) AS calls,
       sw.warehouse_ids, sw.locations
FROM listing l
JOIN store s ON s.tenant_id = l.tenant_id AND s.id = l.store_id
LEFT JOIN LATERAL (
    SELECT t.quantity_delivered, t.version_settled, t.calls FROM listing_state t
    WHERE t.tenant_id = l.tenant_id AND t.listing_id >= l.id AND t.listing_id <= l.id
    ORDER BY t.listing_id DESC LIMIT 1  -- the newest version of the row first: see due_now
) t ON true
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(warehouse_id), '{}') AS warehouse_ids, coalesce(array_agg(location), '{}') AS locations
    FROM store_warehouse sw
    WHERE sw.tenant_id = l.tenant_id AND sw.store_id = l.store_id AND sw.retired_at IS NULL
) sw
WHERE (l.tenant_id, l.variant_id) IN (SELECT * FROM unnest(:tenant_ids::bigint[], :variant_ids::bigint[]))
  AND l.retired_at IS NULL AND s.retired_at IS NULL

-- name: read_contributions
SELECT c.tenant_id, l.variant_id, c.listing_id, c.warehouse_id, c.quantity, c.location, c.version, c.item_id,
       c.item_created_at, c.calls_before
FROM listing l
JOIN store_warehouse w ON w.tenant_id = l.tenant_id AND w.store_id = l.store_id  -- retired ones too
CROSS JOIN LATERAL (
    SELECT c.* FROM contribution c
    WHERE c.tenant_id = l.tenant_id AND c.listing_id = l.id
      AND c.warehouse_id >= w.warehouse_id AND c.warehouse_id <= w.warehouse_id
    ORDER BY c.warehouse_id DESC LIMIT 1
) c
WHERE (l.tenant_id, l.variant_id) IN (SELECT * FROM unnest(:tenant_ids::bigint[], :variant_ids::bigint[]))
  AND l.retired_at IS NULL

-- name: read_reach
-- Why a named channel has no listing: is there a store of it at all, and does the warehouse serve one?
SELECT r.tenant_id, r.channel, r.warehouse_id,
       EXISTS (SELECT FROM store s WHERE s.tenant_id = r.tenant_id AND s.channel = r.channel AND s.retired_at IS NULL) AS has_store,
       EXISTS (SELECT FROM store s JOIN store_warehouse sw ON sw.tenant_id = s.tenant_id AND sw.store_id = s.id
               WHERE s.tenant_id = r.tenant_id AND s.channel = r.channel AND s.retired_at IS NULL
                 AND sw.warehouse_id = r.warehouse_id AND sw.retired_at IS NULL) AS serves_store
FROM unnest(:tenant_ids::bigint[], :channels::text[], :warehouse_ids::bigint[]) AS r (tenant_id, channel, warehouse_id)

-- name: take_versions
-- After the lock: for one variant the order of versions is the order of changes. The time is the updates' created_at.
SELECT nextval('version_seq') AS version, clock_timestamp() AS at FROM generate_series(1, :count::int)

-- name: take_item_ids
SELECT nextval('item_seq') AS id FROM generate_series(1, :count::int)

-- name: write_levels!
-- Under the variant's lock nobody else writes these, so a row lies where it was found. ON CONFLICT would look at all of its
-- dead versions, which stay while somebody holds a snapshot; here the newest one is found first (see due_now).
WITH r AS MATERIALIZED (
    SELECT * FROM unnest(:tenant_ids::bigint[], :variant_ids::bigint[], :warehouse_ids::bigint[], :available::int[],
                         :buffer::int[], :reserved::int[], :sync::bool[], :newest_as_of::timestamptz[])
        AS r (tenant_id, variant_id, warehouse_id, available, buffer, reserved, sync, newest_as_of)
), known AS MATERIALIZED (
    SELECT r.*, l.address
    FROM r CROSS JOIN LATERAL (
        SELECT l.ctid AS address FROM stock_level l
        WHERE l.tenant_id = r.tenant_id AND l.variant_id = r.variant_id
          AND l.warehouse_id >= r.warehouse_id AND l.warehouse_id <= r.warehouse_id
        ORDER BY l.warehouse_id DESC LIMIT 1
    ) l
), written AS (
    UPDATE stock_level l
    SET available = k.available, buffer = k.buffer, sync = k.sync, newest_as_of = k.newest_as_of, updated_at = now()
    FROM known k WHERE l.ctid = k.address
)
INSERT INTO stock_level (tenant_id, variant_id, warehouse_id, available, buffer, reserved, sync, newest_as_of, updated_at)
SELECT r.*, now() FROM r
WHERE NOT EXISTS (SELECT FROM known k WHERE (k.tenant_id, k.variant_id, k.warehouse_id)
                                          = (r.tenant_id, r.variant_id, r.warehouse_id))

-- name: write_figures!
INSERT INTO channel_stock (tenant_id, variant_id, warehouse_id, channel, figure, named)
SELECT * FROM unnest(:tenant_ids::bigint[], :variant_ids::bigint[], :warehouse_ids::bigint[], :channels::text[],
                     :figures::int[], :named::bool[])
ORDER BY 1, 2, 3, 4
ON CONFLICT (tenant_id, variant_id, warehouse_id, channel) DO UPDATE SET figure = EXCLUDED.figure, named = EXCLUDED.named

-- name: lock_states
-- Before some are cleared and others written: all of them at once, sorted, as the delivery half locks them; each is locked
-- as it is found, the newest version of its row first.
SELECT s.listing_id
FROM (SELECT * FROM unnest(:tenant_ids::bigint[], :listing_ids::bigint[]) AS r (tenant_id, listing_id) ORDER BY 1, 2) r
CROSS JOIN LATERAL (
    SELECT s.listing_id FROM listing_state s
    WHERE s.tenant_id = r.tenant_id AND s.listing_id >= r.listing_id AND s.listing_id <= r.listing_id
    ORDER BY s.listing_id DESC LIMIT 1
    FOR NO KEY UPDATE
) s

-- name: write_states!
-- Of rows that lock_states has locked in a statement before, or that are not there yet: made under the variant's lock only.
-- A listing that waits keeps waiting, with a newer version; what was submitted is asked about first. A parked one is tried
-- again, at most every so often: as long as it has a park_retry_at, its row in listing_wait brings it back. One that keeps
-- failing stays among the retries.
WITH r AS MATERIALIZED (
    SELECT * FROM unnest(:tenant_ids::bigint[], :listing_ids::bigint[], :store_ids::bigint[], :lanes::smallint[],
                         :versions::bigint[], :quantities::bigint[])
        AS r (tenant_id, listing_id, store_id, lane, version, quantity)
), known AS MATERIALIZED (
    SELECT r.*, s.address
    FROM r CROSS JOIN LATERAL (
        SELECT s.ctid AS address FROM listing_state s
        WHERE s.tenant_id = r.tenant_id AND s.listing_id >= r.listing_id AND s.listing_id <= r.listing_id
        ORDER BY s.listing_id DESC LIMIT 1
    ) s
), written AS (
    UPDATE listing_state s SET
    version_due  = k.version,
    quantity_due = k.quantity,
    due_since    = coalesce(s.due_since, clock_timestamp()),
    due_for      = CASE WHEN s.due_for = 'ask' THEN 'ask' ELSE 'push' END,
    state        = CASE WHEN s.state = 'waiting' THEN 'waiting'
                        WHEN s.state = 'parked' AND s.park_retry_at IS NOT NULL THEN 'parked' ELSE 'due' END,
    lane         = CASE WHEN s.state = 'waiting' OR s.state = 'parked' AND s.park_retry_at IS NOT NULL THEN 0
                        WHEN s.state = 'parked' THEN 3
                        ELSE k.lane + CASE WHEN s.attempts > 0 THEN 3 ELSE 0 END END,
    park_reason  = CASE WHEN s.state = 'parked' AND s.park_retry_at IS NOT NULL THEN s.park_reason END
    FROM known k WHERE s.ctid = k.address
)
INSERT INTO listing_state (tenant_id, listing_id, store_id, state, lane, version_due, quantity_due, due_since)
SELECT r.tenant_id, r.listing_id, r.store_id, 'due', r.lane, r.version, r.quantity, clock_timestamp()
FROM r
WHERE NOT EXISTS (SELECT FROM known k WHERE (k.tenant_id, k.listing_id) = (r.tenant_id, r.listing_id))

-- name: write_contributions!
-- As write_levels.
WITH r AS MATERIALIZED (
    SELECT * FROM unnest(:tenant_ids::bigint[], :listing_ids::bigint[], :warehouse_ids::bigint[], :quantities::bigint[],
                         :locations::text[], :versions::bigint[], :item_ids::bigint[], :item_created_ats::timestamptz[],
                         :calls_before::bigint[])
        AS r (tenant_id, listing_id, warehouse_id, quantity, location, version, item_id, item_created_at, calls_before)
), known AS MATERIALIZED (
    SELECT r.*, c.address
    FROM r CROSS JOIN LATERAL (
        SELECT c.ctid AS address FROM contribution c
        WHERE c.tenant_id = r.tenant_id AND c.listing_id = r.listing_id
          AND c.warehouse_id >= r.warehouse_id AND c.warehouse_id <= r.warehouse_id
        ORDER BY c.warehouse_id DESC LIMIT 1
    ) c
), written AS (
    UPDATE contribution c
    SET quantity = k.quantity, location = k.location, version = k.version, item_id = k.item_id,
        item_created_at = k.item_created_at, calls_before = k.calls_before
    FROM known k WHERE c.ctid = k.address
)
INSERT INTO contribution (tenant_id, listing_id, warehouse_id, quantity, location, version, item_id, item_created_at, calls_before)
SELECT r.* FROM r
WHERE NOT EXISTS (SELECT FROM known k WHERE (k.tenant_id, k.listing_id, k.warehouse_id)
                                          = (r.tenant_id, r.listing_id, r.warehouse_id))

-- name: drop_contributions!
-- A warehouse that no longer serves a store adds nothing to its listings.
DELETE FROM contribution
WHERE (tenant_id, listing_id, warehouse_id) IN (
    SELECT * FROM unnest(:tenant_ids::bigint[], :listing_ids::bigint[], :warehouse_ids::bigint[]))

-- name: clear_states!
-- Nothing is to be shown any more (the last warehouse unlinked, the listing or its store removed): nothing is sent.
UPDATE listing_state
SET state = 'idle', lane = 0, park_reason = NULL, park_retry_at = NULL, version_due = r.version, version_settled = r.version,
    due_for = 'push', due_since = NULL, failing_since = NULL, quantity_floor = NULL,
    handle = NULL, handle_version = NULL, handle_quantity = NULL, handle_at = NULL
FROM unnest(:tenant_ids::bigint[], :listing_ids::bigint[], :versions::bigint[]) AS r (tenant_id, listing_id, version)
WHERE listing_state.tenant_id = r.tenant_id AND listing_state.listing_id = r.listing_id

-- name: drop_waits!
DELETE FROM listing_wait
WHERE (tenant_id, listing_id) IN (SELECT * FROM unnest(:tenant_ids::bigint[], :listing_ids::bigint[]))

-- name: write_updates!
INSERT INTO stock_update (tenant_id, created_at, id, transaction_code, partner_id, action_name, total_sku, items,
                          items_open, updated_at, finished_at)
SELECT r.tenant_id, r.created_at, r.id, r.code, r.partner_id, 'partner_update_stocks', 1, r.items, r.items_open,
       r.created_at, CASE WHEN r.items_open = 0 THEN r.created_at END
FROM unnest(:tenant_ids::bigint[], :created_ats::timestamptz[], :ids::bigint[], :codes::uuid[], :partner_ids::text[],
            :items::int[], :items_open::int[]) AS r (tenant_id, created_at, id, code, partner_id, items, items_open)

-- name: write_items!
INSERT INTO item (tenant_id, created_at, update_id, id, listing_id, store_id, warehouse_id, variant_id, channel, quantity,
                  success, message, client_response, finished_at)
SELECT r.tenant_id, r.created_at, r.update_id, r.id, r.listing_id, r.store_id, r.warehouse_id, r.variant_id, r.channel,
       r.quantity, r.success, r.message, CASE WHEN r.message IS NOT NULL THEN '' END,
       CASE WHEN r.message IS NOT NULL THEN r.created_at END
FROM unnest(:tenant_ids::bigint[], :created_ats::timestamptz[], :update_ids::bigint[], :ids::bigint[],
            :listing_ids::bigint[], :store_ids::bigint[], :warehouse_ids::bigint[], :variant_ids::bigint[],
            :channels::text[], :quantities::bigint[], :success::bool[], :messages::text[])
     AS r (tenant_id, created_at, update_id, id, listing_id, store_id, warehouse_id, variant_id, channel, quantity,
           success, message)

-- name: write_changes!
INSERT INTO stock_change (tenant_id, created_at, update_id, row_number, variant_id, warehouse_id, available, buffer,
                          sync, figures, as_of, applied, replaced)
SELECT * FROM unnest(:tenant_ids::bigint[], :created_ats::timestamptz[], :update_ids::bigint[], :row_numbers::int[],
                     :variant_ids::bigint[], :warehouse_ids::bigint[], :available::int[], :buffer::int[], :sync::bool[],
                     :figures::jsonb[], :as_of::timestamptz[], :applied::bool[], :replaced::jsonb[])

-- name: end_items!
-- Ends open items and counts them off their records. An item that has ended never changes. Records are locked in order
-- of their keys: several ends may concern the same ones. The time is this moment's, not the transaction's: that one may
-- have begun before the item was made.
WITH ended AS (
    UPDATE item SET success = r.success, message = r.message, client_response = '', finished_at = clock_timestamp(),
                    retries = greatest(0, r.calls - 1)
    FROM unnest(:tenant_ids::bigint[], :created_ats::timestamptz[], :update_ids::bigint[], :ids::bigint[],
                :success::bool[], :messages::text[], :calls::bigint[])
         AS r (tenant_id, created_at, update_id, id, success, message, calls)
    WHERE item.tenant_id = r.tenant_id AND item.created_at = r.created_at AND item.update_id = r.update_id
      AND item.id = r.id AND item.finished_at IS NULL
    RETURNING item.tenant_id, item.created_at, item.update_id
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

-- name: committed
-- After a COMMIT whose answer was lost: did it take effect?
SELECT EXISTS (SELECT FROM stock_update WHERE tenant_id = :tenant_id AND created_at = :created_at AND id = :id)
