-- Accepting updates. The order of the statements is part of the algorithm: see inventory/stock.py.

-- name: resolve
-- What the requests' tenants want, and their warehouses; warehouse_id NULL: there is none of that name any more.
SELECT r.tenant_id, r.warehouse, t.name, t.unknown_sku, t.channel_stock_limit, w.id AS warehouse_id
FROM unnest(:tenant_ids::bigint[], :warehouses::text[]) AS r (tenant_id, warehouse)
JOIN tenant t ON t.id = r.tenant_id
LEFT JOIN warehouse w ON w.tenant_id = r.tenant_id AND w.name = r.warehouse AND w.retired_at IS NULL

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

-- name: read_stock
-- The levels of locked variants, and their figures: a row is one or the other. Of a level's row the newest version first: see
-- due_now.
SELECT l.tenant_id, l.variant_id, l.warehouse_id, l.available, l.buffer, l.reserved, l.sync, l.newest_as_of,
       NULL AS channel, NULL AS figure, NULL AS named
FROM unnest(:tenant_ids::bigint[], :variant_ids::bigint[]) AS r (tenant_id, variant_id)
JOIN warehouse w ON w.tenant_id = r.tenant_id  -- retired ones too
CROSS JOIN LATERAL (
    SELECT l.* FROM stock_level l
    WHERE l.tenant_id = r.tenant_id AND l.variant_id = r.variant_id AND l.warehouse_id >= w.id AND l.warehouse_id <= w.id
    ORDER BY l.warehouse_id DESC LIMIT 1
) l
UNION ALL
SELECT f.tenant_id, f.variant_id, f.warehouse_id, NULL, NULL, NULL, NULL, NULL, f.channel, f.figure, f.named
FROM channel_stock f
WHERE (f.tenant_id, f.variant_id) IN (SELECT * FROM unnest(:tenant_ids::bigint[], :variant_ids::bigint[]))

-- name: read_listings
-- The live listings of locked variants, what was last delivered to them, and for each link of their stores (also one that is
-- undone) what its warehouse contributes: a row for each link, one without any for a listing whose store has none.
SELECT l.tenant_id, l.variant_id, l.id, l.store_id, s.channel,
       t.quantity_delivered, coalesce(t.version_settled, 0) AS version_settled, coalesce(t.calls, 0) AS calls,
       sw.warehouse_id, sw.retired_at IS NULL AS serving, sw.location AS serving_at,
       c.quantity, c.location, c.version, c.item_id, c.item_created_at, c.calls_before
FROM listing l
JOIN store s ON s.tenant_id = l.tenant_id AND s.id = l.store_id
LEFT JOIN LATERAL (
    SELECT t.quantity_delivered, t.version_settled, t.calls FROM listing_state t
    WHERE t.tenant_id = l.tenant_id AND t.listing_id >= l.id AND t.listing_id <= l.id
    ORDER BY t.listing_id DESC LIMIT 1  -- the newest version of the row first: see due_now
) t ON true
LEFT JOIN store_warehouse sw ON sw.tenant_id = l.tenant_id AND sw.store_id = l.store_id
LEFT JOIN LATERAL (
    SELECT c.* FROM contribution c
    WHERE c.tenant_id = l.tenant_id AND c.listing_id = l.id
      AND c.warehouse_id >= sw.warehouse_id AND c.warehouse_id <= sw.warehouse_id
    ORDER BY c.warehouse_id DESC LIMIT 1
) c ON true
WHERE (l.tenant_id, l.variant_id) IN (SELECT * FROM unnest(:tenant_ids::bigint[], :variant_ids::bigint[]))
  AND l.retired_at IS NULL AND s.retired_at IS NULL

-- name: read_reach
-- Why a named channel has no listing: is there a store of it at all, and does the warehouse serve one?
SELECT r.tenant_id, r.channel, r.warehouse_id,
       EXISTS (SELECT FROM store s WHERE s.tenant_id = r.tenant_id AND s.channel = r.channel AND s.retired_at IS NULL) AS has_store,
       EXISTS (SELECT FROM store s JOIN store_warehouse sw ON sw.tenant_id = s.tenant_id AND sw.store_id = s.id
               WHERE s.tenant_id = r.tenant_id AND s.channel = r.channel AND s.retired_at IS NULL
                 AND sw.warehouse_id = r.warehouse_id AND sw.retired_at IS NULL) AS serves_store
FROM unnest(:tenant_ids::bigint[], :channels::text[], :warehouse_ids::bigint[]) AS r (tenant_id, channel, warehouse_id)

-- name: take_ids
-- Versions and ids of items. After the lock: for one variant the order of versions is the order of changes. The time is the
-- updates' created_at.
SELECT CASE WHEN n <= :versions::int THEN nextval('version_seq') END AS version, clock_timestamp() AS at,
       CASE WHEN n <= :items::int THEN nextval('item_seq') END AS item_id
FROM generate_series(1, greatest(:versions::int, :items::int)) n

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

-- name: write_stock!
-- Contributions, levels and figures of locked variants: nobody else writes these, so a row lies where it was found. ON CONFLICT
-- would look at all of its dead versions, which stay while somebody holds a snapshot; here the newest one is found first (see
-- due_now). Figures change seldom.
WITH c AS MATERIALIZED (
    SELECT * FROM unnest(:c_tenant_ids::bigint[], :c_listing_ids::bigint[], :c_warehouse_ids::bigint[], :c_quantities::bigint[],
                         :c_locations::text[], :c_versions::bigint[], :c_item_ids::bigint[], :c_item_created_ats::timestamptz[],
                         :c_calls_before::bigint[])
        AS c (tenant_id, listing_id, warehouse_id, quantity, location, version, item_id, item_created_at, calls_before)
), known_contributions AS MATERIALIZED (
    SELECT c.*, k.address
    FROM c CROSS JOIN LATERAL (
        SELECT k.ctid AS address FROM contribution k
        WHERE k.tenant_id = c.tenant_id AND k.listing_id = c.listing_id
          AND k.warehouse_id >= c.warehouse_id AND k.warehouse_id <= c.warehouse_id
        ORDER BY k.warehouse_id DESC LIMIT 1
    ) k
), written_contributions AS (
    UPDATE contribution c
    SET quantity = k.quantity, location = k.location, version = k.version, item_id = k.item_id,
        item_created_at = k.item_created_at, calls_before = k.calls_before
    FROM known_contributions k WHERE c.ctid = k.address
), new_contributions AS (
    INSERT INTO contribution (tenant_id, listing_id, warehouse_id, quantity, location, version, item_id, item_created_at,
                              calls_before)
    SELECT c.* FROM c
    WHERE NOT EXISTS (SELECT FROM known_contributions k WHERE (k.tenant_id, k.listing_id, k.warehouse_id)
                                                            = (c.tenant_id, c.listing_id, c.warehouse_id))
), l AS MATERIALIZED (
    SELECT * FROM unnest(:l_tenant_ids::bigint[], :l_variant_ids::bigint[], :l_warehouse_ids::bigint[], :l_available::int[],
                         :l_buffer::int[], :l_reserved::int[], :l_sync::bool[], :l_newest_as_of::timestamptz[])
        AS l (tenant_id, variant_id, warehouse_id, available, buffer, reserved, sync, newest_as_of)
), known_levels AS MATERIALIZED (
    SELECT l.*, k.address
    FROM l CROSS JOIN LATERAL (
        SELECT k.ctid AS address FROM stock_level k
        WHERE k.tenant_id = l.tenant_id AND k.variant_id = l.variant_id
          AND k.warehouse_id >= l.warehouse_id AND k.warehouse_id <= l.warehouse_id
        ORDER BY k.warehouse_id DESC LIMIT 1
    ) k
), written_levels AS (
    UPDATE stock_level l
    SET available = k.available, buffer = k.buffer, sync = k.sync, newest_as_of = k.newest_as_of, updated_at = now()
    FROM known_levels k WHERE l.ctid = k.address
), new_levels AS (
    INSERT INTO stock_level (tenant_id, variant_id, warehouse_id, available, buffer, reserved, sync, newest_as_of, updated_at)
    SELECT l.*, now() FROM l
    WHERE NOT EXISTS (SELECT FROM known_levels k WHERE (k.tenant_id, k.variant_id, k.warehouse_id)
                                                     = (l.tenant_id, l.variant_id, l.warehouse_id))
)
INSERT INTO channel_stock (tenant_id, variant_id, warehouse_id, channel, figure, named)
SELECT * FROM unnest(:f_tenant_ids::bigint[], :f_variant_ids::bigint[], :f_warehouse_ids::bigint[], :f_channels::text[],
                     :f_figures::int[], :f_named::bool[])
ORDER BY 1, 2, 3, 4
ON CONFLICT (tenant_id, variant_id, warehouse_id, channel) DO UPDATE SET figure = EXCLUDED.figure, named = EXCLUDED.named

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

-- name: write_history!
-- Updates with their items and what they changed.
WITH updates AS (
    INSERT INTO stock_update (tenant_id, created_at, id, transaction_code, partner_id, action_name, total_sku, items,
                              items_open, updated_at, finished_at)
    SELECT r.tenant_id, r.created_at, r.id, r.code, r.partner_id, 'partner_update_stocks', 1, r.items, r.items_open,
           r.created_at, CASE WHEN r.items_open = 0 THEN r.created_at END
    FROM unnest(:u_tenant_ids::bigint[], :u_created_ats::timestamptz[], :u_ids::bigint[], :u_codes::uuid[],
                :u_partner_ids::text[], :u_items::int[], :u_items_open::int[])
         AS r (tenant_id, created_at, id, code, partner_id, items, items_open)
), items AS (
    INSERT INTO item (tenant_id, created_at, update_id, id, listing_id, store_id, warehouse_id, variant_id, channel,
                      quantity, success, message, client_response, finished_at)
    SELECT r.tenant_id, r.created_at, r.update_id, r.id, r.listing_id, r.store_id, r.warehouse_id, r.variant_id, r.channel,
           r.quantity, r.success, r.message, CASE WHEN r.message IS NOT NULL THEN '' END,
           CASE WHEN r.message IS NOT NULL THEN r.created_at END
    FROM unnest(:i_tenant_ids::bigint[], :i_created_ats::timestamptz[], :i_update_ids::bigint[], :i_ids::bigint[],
                :i_listing_ids::bigint[], :i_store_ids::bigint[], :i_warehouse_ids::bigint[], :i_variant_ids::bigint[],
                :i_channels::text[], :i_quantities::bigint[], :i_success::bool[], :i_messages::text[])
         AS r (tenant_id, created_at, update_id, id, listing_id, store_id, warehouse_id, variant_id, channel, quantity,
               success, message)
)
INSERT INTO stock_change (tenant_id, created_at, update_id, row_number, variant_id, warehouse_id, available, buffer,
                          sync, figures, as_of, applied, replaced)
SELECT * FROM unnest(:c_tenant_ids::bigint[], :c_created_ats::timestamptz[], :c_update_ids::bigint[], :c_row_numbers::int[],
                     :c_variant_ids::bigint[], :c_warehouse_ids::bigint[], :c_available::int[], :c_buffer::int[],
                     :c_sync::bool[], :c_figures::jsonb[], :c_as_of::timestamptz[], :c_applied::bool[],
                     :c_replaced::jsonb[])

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
