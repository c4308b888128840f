-- name: put_variants
-- Makes or renames; `made` tells which.
INSERT INTO variant AS v (tenant_id, sku, name)
SELECT :tenant_id::bigint, r.sku, r.name FROM unnest(:skus::text[], :names::text[]) AS r (sku, name) ORDER BY r.sku
ON CONFLICT (tenant_id, sku) DO UPDATE SET name = EXCLUDED.name, retired_at = NULL
RETURNING v.id, v.sku, (xmax = 0) AS made

-- name: variants_by_sku
SELECT id, sku FROM variant WHERE tenant_id = :tenant_id AND sku = ANY(:skus::text[]) AND retired_at IS NULL

-- name: live_listings
-- What a store's remote variants are mapped to now.
SELECT l.id, l.store_id, l.remote_variant, l.variant_id
FROM listing l JOIN unnest(:store_ids::bigint[], :remote_variants::text[]) AS r (store_id, remote_variant)
  ON l.store_id = r.store_id AND l.remote_variant = r.remote_variant
WHERE l.tenant_id = :tenant_id AND l.retired_at IS NULL

-- name: listings_by_id
-- Live ones only.
SELECT id, store_id, remote_variant, variant_id FROM listing
WHERE tenant_id = :tenant_id AND id = ANY(:ids::bigint[]) AND retired_at IS NULL ORDER BY id

-- name: retire_listings!
UPDATE listing SET retired_at = now() WHERE tenant_id = :tenant_id AND id = ANY(:ids::bigint[]) AND retired_at IS NULL

-- name: add_listings
INSERT INTO listing (tenant_id, variant_id, store_id, remote_variant)
SELECT :tenant_id::bigint, r.* FROM unnest(:variant_ids::bigint[], :store_ids::bigint[], :remote_variants::text[]) AS r
RETURNING id, variant_id, store_id, remote_variant

-- name: listings_of_store
-- A chunk of a store's live listings, in order of remote_variant.
SELECT l.id, l.variant_id, l.remote_variant FROM listing l
WHERE l.tenant_id = :tenant_id AND l.store_id = :store_id AND l.retired_at IS NULL AND l.remote_variant > :after
ORDER BY l.remote_variant LIMIT :limit

-- name: calling_states
-- The listings for which a call may be under way, or may still take effect, and for how many seconds at most: a call, as
-- long as a lease and then the store's quiesce time; what was submitted, as long as it is waited for and then that.
SELECT s.listing_id,
       greatest(extract(epoch FROM s.doubtful_until - clock_timestamp()),
                greatest(:seconds::float8, k.quiesce_seconds + k.lifetime_seconds)
                + CASE WHEN s.handle IS NOT NULL THEN :submitted_seconds::float8 ELSE 0 END)::float8 AS seconds
FROM listing_state s
LEFT JOIN store_lease k ON k.store_id = s.store_id
WHERE s.tenant_id = :tenant_id AND s.listing_id = ANY(:ids::bigint[])
  AND (s.state = 'due' OR s.handle IS NOT NULL OR s.doubtful_until > clock_timestamp())

-- name: doubted_places
-- Where calls of listings that were removed may still take effect, and for how many seconds.
SELECT l.store_id, l.remote_variant, max(extract(epoch FROM s.doubtful_until - clock_timestamp()))::float8 AS seconds
FROM unnest(:store_ids::bigint[], :remote_variants::text[]) AS r (store_id, remote_variant)
JOIN listing l ON l.tenant_id = :tenant_id AND l.store_id = r.store_id AND l.remote_variant = r.remote_variant
              AND l.retired_at IS NOT NULL
JOIN listing_state s ON s.tenant_id = l.tenant_id AND s.listing_id = l.id
WHERE s.doubtful_until > clock_timestamp()
GROUP BY l.store_id, l.remote_variant

-- name: doubt_states!
-- What is delivered to these is confirmed later: a call whose quantity nobody knows may still take effect.
-- One without a figure has a state from now on, because of that alone.
-- Under the variants' locks, as all that makes states; those that are there are locked as the delivery half locks them, sorted.
WITH r AS MATERIALIZED (
    SELECT l.tenant_id, l.id AS listing_id, l.store_id, clock_timestamp() + r.seconds * interval '1 second' AS doubtful_until
    FROM unnest(:ids::bigint[], :seconds::float8[]) AS r (listing_id, seconds)
    JOIN listing l ON l.tenant_id = :tenant_id AND l.id = r.listing_id
), known AS MATERIALIZED (
    SELECT s.tenant_id, s.listing_id FROM listing_state s
    WHERE s.tenant_id = :tenant_id AND s.listing_id = ANY(:ids::bigint[])
    ORDER BY s.tenant_id, s.listing_id
    FOR NO KEY UPDATE
), written AS (
    UPDATE listing_state s SET doubtful_until = r.doubtful_until, quantity_doubtful = NULL
    FROM known k JOIN r USING (tenant_id, listing_id)
    WHERE s.tenant_id = k.tenant_id AND s.listing_id = k.listing_id
)
INSERT INTO listing_state (tenant_id, listing_id, store_id, state, lane, version_due, quantity_due, doubtful_until)
SELECT r.tenant_id, r.listing_id, r.store_id, 'idle', 0, 0, 0, r.doubtful_until
FROM r
WHERE NOT EXISTS (SELECT FROM known k WHERE (k.tenant_id, k.listing_id) = (r.tenant_id, r.listing_id))

-- name: list_listings
SELECT l.id, v.sku, l.store_id, s.name AS store, s.channel, l.remote_variant, t.state, t.quantity_due, t.quantity_delivered,
       t.version_due, t.version_delivered, t.delivered_at, t.park_reason, t.last_outcome, t.last_message
FROM listing l
JOIN variant v ON v.tenant_id = l.tenant_id AND v.id = l.variant_id
JOIN store s ON s.tenant_id = l.tenant_id AND s.id = l.store_id
LEFT JOIN listing_state t ON t.tenant_id = l.tenant_id AND t.listing_id = l.id
WHERE l.tenant_id = :tenant_id AND l.retired_at IS NULL
  AND (:store_id::bigint IS NULL OR l.store_id = :store_id) AND (:sku::text IS NULL OR v.sku = :sku)
ORDER BY v.sku, l.id LIMIT :limit

-- name: stock_of_sku
-- The inputs of what a SKU's listings show: a row for each of its warehouses.
SELECT w.name AS warehouse, l.available, l.buffer, l.reserved, l.sync, l.newest_as_of, l.updated_at,
       (SELECT coalesce(jsonb_object_agg(f.channel, jsonb_build_object('quantity', f.figure, 'named', f.named)), '{}')
        FROM channel_stock f WHERE f.tenant_id = l.tenant_id AND f.variant_id = l.variant_id
                               AND f.warehouse_id = l.warehouse_id) AS figures
FROM variant v
JOIN stock_level l ON l.tenant_id = v.tenant_id AND l.variant_id = v.id
JOIN warehouse w ON w.tenant_id = l.tenant_id AND w.id = l.warehouse_id
WHERE v.tenant_id = :tenant_id AND v.sku = :sku
ORDER BY w.id

-- name: contributions_of_sku
SELECT c.listing_id, w.name AS warehouse, c.quantity, c.location
FROM variant v
JOIN listing l ON l.tenant_id = v.tenant_id AND l.variant_id = v.id AND l.retired_at IS NULL
JOIN contribution c ON c.tenant_id = l.tenant_id AND c.listing_id = l.id
JOIN warehouse w ON w.tenant_id = c.tenant_id AND w.id = c.warehouse_id
WHERE v.tenant_id = :tenant_id AND v.sku = :sku
ORDER BY c.listing_id, w.id
