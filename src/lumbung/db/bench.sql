-- A benchmark's database: filled as if partners had worked with it for a while; and the bare upserts of its baseline R.

-- name: now$
SELECT clock_timestamp()

-- name: put_variants!
INSERT INTO variant (tenant_id, sku) SELECT :tenant_id, 'sku' || n FROM generate_series(:first::int, :last::int) n

-- name: put_levels!
INSERT INTO stock_level (tenant_id, variant_id, warehouse_id, available, buffer, sync, updated_at)
SELECT v.tenant_id, v.id, 0, 1, 0, false, now()
FROM generate_series(:first::int, :last::int) n JOIN variant v ON v.tenant_id = :tenant_id AND v.sku = 'sku' || n

-- name: put_figures!
INSERT INTO channel_stock (tenant_id, variant_id, warehouse_id, channel, figure, named)
SELECT v.tenant_id, v.id, 0, c.channel, 1, true
FROM generate_series(:first::int, :last::int) n JOIN variant v ON v.tenant_id = :tenant_id AND v.sku = 'sku' || n
CROSS JOIN (SELECT DISTINCT s.channel FROM store s WHERE s.tenant_id = :tenant_id AND s.id = ANY(:store_ids::bigint[])) c

-- name: put_listings!
INSERT INTO listing (tenant_id, variant_id, store_id, remote_variant)
SELECT v.tenant_id, v.id, s.id,
       CASE s.channel WHEN 'shpe' THEN format('{"item_id": %s, "variation_id": %s}', 1 + n / :variations, 1 + n % :variations)
                      ELSE format('{"blibli_sku": "%s-%s-00001"}', s.account, lpad(n::text, 7, '0')) END
FROM generate_series(:first::int, :last::int) n JOIN variant v ON v.tenant_id = :tenant_id AND v.sku = 'sku' || n
JOIN store s ON s.tenant_id = :tenant_id AND s.id = ANY(:store_ids::bigint[])

-- name: put_contributions!
INSERT INTO contribution (tenant_id, listing_id, warehouse_id, quantity, version)
SELECT l.tenant_id, l.id, 0, 1, nextval('version_seq')
FROM generate_series(:first::int, :last::int) n JOIN variant v ON v.tenant_id = :tenant_id AND v.sku = 'sku' || n
JOIN listing l ON l.tenant_id = v.tenant_id AND l.variant_id = v.id

-- name: put_states!
INSERT INTO listing_state (tenant_id, listing_id, store_id, state, lane, version_due, version_delivered, version_settled,
                           quantity_due, quantity_delivered, delivered_at, calls)
SELECT l.tenant_id, l.id, l.store_id, 'idle', 0, c.version, c.version, c.version, 1, 1, now(), 1
FROM generate_series(:first::int, :last::int) n JOIN variant v ON v.tenant_id = :tenant_id AND v.sku = 'sku' || n
JOIN listing l ON l.tenant_id = v.tenant_id AND l.variant_id = v.id
JOIN contribution c ON c.tenant_id = l.tenant_id AND c.listing_id = l.id

-- name: settle_states!
UPDATE listing_state SET state = 'idle', lane = 0, version_delivered = version_due, version_settled = version_due,
                         quantity_delivered = quantity_due, delivered_at = now(), due_since = NULL, calls = calls + 1
WHERE lane > 0

-- name: settle_all_items!
UPDATE item SET success = true, message = 'Successfully Updated', client_response = '', finished_at = now()
WHERE finished_at IS NULL

-- name: settle_updates!
-- Not of what is committed while this is done: a load that has ended leaves requests under way.
UPDATE stock_update u SET items_open = 0, updated_at = now(), finished_at = now()
WHERE items_open > 0 AND NOT EXISTS (
    SELECT FROM item i WHERE i.tenant_id = u.tenant_id AND i.created_at = u.created_at AND i.update_id = u.id
                         AND i.finished_at IS NULL)

-- name: due_records!
-- A record and its item for each listing of these stores.
WITH chosen AS MATERIALIZED (
    SELECT l.*, nextval('version_seq') AS version
    FROM (SELECT l.tenant_id, l.id, l.store_id, l.variant_id FROM listing l
          WHERE l.store_id = ANY(:store_ids::bigint[]) ORDER BY l.tenant_id, l.id) l
), updates AS (
    INSERT INTO stock_update (tenant_id, created_at, id, transaction_code, partner_id, action_name, total_sku, items,
                              items_open, updated_at)
    SELECT tenant_id, :at::timestamptz, version, gen_random_uuid(), 'bench', 'partner_update_stocks', 1, 1, 1,
           :at::timestamptz
    FROM chosen
)
INSERT INTO item (tenant_id, created_at, update_id, id, listing_id, store_id, warehouse_id, variant_id, channel, quantity)
SELECT c.tenant_id, :at::timestamptz, c.version, nextval('item_seq'), c.id, c.store_id, 0, c.variant_id, s.channel,
       1 + c.version % 1000
FROM chosen c JOIN store s ON s.id = c.store_id

-- name: due_contributions!
UPDATE contribution c SET quantity = i.quantity, version = i.update_id, item_id = i.id, item_created_at = i.created_at,
                          calls_before = s.calls
FROM item i JOIN listing_state s ON s.tenant_id = i.tenant_id AND s.listing_id = i.listing_id
WHERE i.created_at = :at::timestamptz AND i.store_id = ANY(:store_ids::bigint[])
  AND c.tenant_id = i.tenant_id AND c.listing_id = i.listing_id

-- name: due_states!
UPDATE listing_state s SET state = 'due', lane = 1, version_due = i.update_id, quantity_due = i.quantity, due_since = i.created_at
FROM item i
WHERE i.created_at = :at::timestamptz AND i.store_id = ANY(:store_ids::bigint[])
  AND s.tenant_id = i.tenant_id AND s.listing_id = i.listing_id

-- name: analyze!
ANALYZE variant, listing, contribution

-- name: vacuum!
VACUUM ANALYZE

-- name: checkpoint!
CHECKPOINT

-- name: count_updates$
SELECT count(*) FROM stock_update
WHERE tenant_id = :tenant_id AND (:since::timestamptz IS NULL OR updated_at >= :since)

-- name: is_finished$
SELECT EXISTS (SELECT FROM stock_update
               WHERE tenant_id = :tenant_id AND created_at > now() - interval '1 minute'
                 AND transaction_code = :transaction_code::uuid AND finished_at IS NOT NULL)

-- name: server_settings
SELECT name, current_setting(name) AS setting FROM unnest(:names::text[]) AS name

-- name: bare_tables!
-- With the columns, indexes, checks and fill factors of the real ones, without their triggers, foreign keys and partitions.
-- Keys are made unique where the real ones are kept so by a trigger: ON CONFLICT needs that.
DO $$
DECLARE
    made record;
BEGIN
    FOR made IN SELECT * FROM (VALUES ('stock_update', 60), ('stock_change', 100), ('stock_level', 70), ('channel_stock', 70),
                                      ('item', 60), ('contribution', 70), ('listing_state', 60)) AS t (name, fill) LOOP
        EXECUTE format('DROP TABLE IF EXISTS bare_%1$s', made.name);
        EXECUTE format('CREATE TABLE bare_%1$s (LIKE %1$s INCLUDING ALL) WITH (fillfactor = %2$s)', made.name, made.fill);
    END LOOP;
END $$

-- name: bare_keys!
DO $$
BEGIN
    DROP INDEX bare_stock_level_tenant_id_variant_id_warehouse_id_idx;
    DROP INDEX bare_contribution_tenant_id_listing_id_warehouse_id_idx;
    DROP INDEX bare_listing_state_tenant_id_listing_id_idx;
    ALTER TABLE bare_stock_level ADD PRIMARY KEY (tenant_id, variant_id, warehouse_id);
    ALTER TABLE bare_contribution ADD PRIMARY KEY (tenant_id, listing_id, warehouse_id);
    ALTER TABLE bare_listing_state ADD PRIMARY KEY (tenant_id, listing_id);
END $$

-- name: bare_updates!
INSERT INTO bare_stock_update (tenant_id, created_at, id, transaction_code, partner_id, action_name, total_sku, items,
                               items_open, updated_at)
SELECT 1, now(), key, gen_random_uuid(), 'bench', 'partner_update_stocks', 1, 2, 2, now() FROM unnest(:keys::bigint[]) key

-- name: bare_changes!
INSERT INTO bare_stock_change (tenant_id, created_at, update_id, row_number, variant_id, warehouse_id, available, buffer, sync,
                               figures, applied, replaced)
SELECT 1, now(), key, 0, key, 0, 9, 0, false, '{"blib": 9, "shpe": 9}', true, '{"available": 1, "buffer": 0, "sync": false}'
FROM unnest(:keys::bigint[]) key

-- name: bare_levels!
INSERT INTO bare_stock_level AS l (tenant_id, variant_id, warehouse_id, available, buffer, sync, updated_at)
SELECT 1, key, 0, 9, 0, false, now() FROM unnest(:keys::bigint[]) key
ON CONFLICT (tenant_id, variant_id, warehouse_id) DO UPDATE SET available = l.available + 1, updated_at = now()

-- name: bare_figures!
INSERT INTO bare_channel_stock AS f (tenant_id, variant_id, warehouse_id, channel, figure, named)
SELECT 1, key, 0, 'blib', 9, true FROM unnest(:keys::bigint[]) key
ON CONFLICT (tenant_id, variant_id, warehouse_id, channel) DO UPDATE SET figure = f.figure + 1

-- name: bare_items!
INSERT INTO bare_item (tenant_id, created_at, update_id, id, listing_id, store_id, warehouse_id, variant_id, channel, quantity)
SELECT 1, clock_timestamp(), key, nextval('item_seq'), key, 1, 0, key, 'blib', 9 FROM unnest(:keys::bigint[]) key

-- name: bare_contributions!
INSERT INTO bare_contribution AS c (tenant_id, listing_id, warehouse_id, quantity, version, item_id, item_created_at)
SELECT 1, key, 0, 9, 1, key, now() FROM unnest(:keys::bigint[]) key
ON CONFLICT (tenant_id, listing_id, warehouse_id) DO UPDATE SET quantity = c.quantity + 1, version = c.version + 1

-- name: bare_states!
INSERT INTO bare_listing_state AS s (tenant_id, listing_id, store_id, state, lane, version_due, quantity_due, due_since)
SELECT 1, key, 1 + key % 10, 'due', 1, 1, 9, now() FROM unnest(:keys::bigint[]) key
ON CONFLICT (tenant_id, listing_id) DO UPDATE SET version_due = s.version_due + 1, quantity_due = s.quantity_due + 1,
    lane = 1 + s.version_due % 2, due_since = now()

-- name: bare_commits!
CREATE TABLE IF NOT EXISTS bare_commit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL)

-- name: anything_due$
SELECT EXISTS (SELECT FROM listing_state WHERE lane > 0)

-- name: an_hour_ago$
SELECT now() - interval '1 hour'

-- name: put_records!
-- Nine in ten end within 5 s, the others within an hour.
WITH made AS (
    INSERT INTO stock_update (tenant_id, created_at, id, transaction_code, partner_id, action_name, total_sku, items,
                              items_open, updated_at, finished_at)
    SELECT :tenant_id::bigint, created, nextval('version_seq'), gen_random_uuid(), 'bench', 'partner_update_stocks', 1, 1, 0,
           created + lag, created + lag
    FROM generate_series(:first::bigint, :last::bigint) AS n,
         LATERAL (SELECT :oldest::timestamptz + n * :apart_seconds::float8 * interval '1 second') AS c (created),
         LATERAL (SELECT random() * interval '1 second' * CASE WHEN n % 10 > 0 THEN 5 ELSE 3600 END) l (lag)
    RETURNING *
)
INSERT INTO item (tenant_id, created_at, update_id, id, listing_id, store_id, warehouse_id, variant_id, channel, quantity,
                  success, message, client_response, finished_at)
SELECT m.tenant_id, m.created_at, m.id, nextval('item_seq'), l.id, l.store_id, 0, l.variant_id, s.channel, 9, true,
       'Successfully Updated', '{"success": true}', m.updated_at
FROM made m
JOIN (SELECT l.*, row_number() OVER (ORDER BY l.id) - 1 AS place, count(*) OVER () AS places
      FROM listing l WHERE l.tenant_id = :tenant_id) l ON l.place = m.id % l.places
JOIN store s ON s.tenant_id = l.tenant_id AND s.id = l.store_id
