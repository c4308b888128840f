-- name: page
-- Records newest first with their items, and the exact number of records that match, from one snapshot. There is at
-- least one row: with a null id when the page is empty. `retries` of an open item are read live from its listing.
WITH page AS (
    SELECT * FROM stock_update u
    WHERE u.tenant_id = :tenant_id AND (:updated_at::timestamptz IS NULL OR u.updated_at >= :updated_at)
    ORDER BY u.created_at DESC, u.id DESC
    LIMIT :limit OFFSET :offset
), total AS (
    SELECT count(*) AS n FROM stock_update u
    WHERE u.tenant_id = :tenant_id AND (:updated_at::timestamptz IS NULL OR u.updated_at >= :updated_at)
)
SELECT total.n AS total, p.id, p.user_id, p.transaction_code, p.action_name, p.upload_file_url, p.total_sku,
       p.created_at, p.updated_at, p.finished_at,
       i.id AS item_id, i.store_id, coalesce(s.name, '') AS store_name, i.warehouse_id, w.name AS warehouse_name,
       i.variant_id, v.sku, coalesce(l.remote_variant, '') AS remote_variant, i.row_number, i.channel, i.quantity,
       CASE WHEN i.finished_at IS NULL THEN greatest(0, t.calls - c.calls_before - 1) ELSE i.retries END AS retries,
       i.client_response, i.message, i.success, i.finished_at AS item_finished_at
FROM total
LEFT JOIN page p ON true
LEFT JOIN LATERAL (
    SELECT * FROM item i
    WHERE i.tenant_id = p.tenant_id AND i.created_at = p.created_at AND i.update_id = p.id
    ORDER BY i.id LIMIT :items_max
) i ON true
LEFT JOIN store s ON s.tenant_id = i.tenant_id AND s.id = i.store_id
LEFT JOIN warehouse w ON w.tenant_id = i.tenant_id AND w.id = i.warehouse_id
LEFT JOIN variant v ON v.tenant_id = i.tenant_id AND v.id = i.variant_id
LEFT JOIN listing l ON l.tenant_id = i.tenant_id AND l.id = i.listing_id
LEFT JOIN listing_state t ON t.tenant_id = i.tenant_id AND t.listing_id = i.listing_id
LEFT JOIN contribution c ON c.tenant_id = i.tenant_id AND c.listing_id = i.listing_id AND c.warehouse_id = i.warehouse_id
ORDER BY p.created_at DESC, p.id DESC, i.id
