-- What an inspector asks of a hub at rest, and who serves what while it runs. Changes nothing; reads whole tables.

-- name: unsettled
-- Listings of live stores that something is still to happen with.
SELECT st.channel, st.account, v.sku, s.state, s.due_for, w.reason AS waits_for, s.last_outcome, s.last_message, s.attempts
FROM listing_state s
JOIN listing l ON l.tenant_id = s.tenant_id AND l.id = s.listing_id
JOIN variant v ON v.tenant_id = l.tenant_id AND v.id = l.variant_id
JOIN store st ON st.tenant_id = s.tenant_id AND st.id = s.store_id
LEFT JOIN listing_wait w ON w.tenant_id = s.tenant_id AND w.listing_id = s.listing_id
WHERE st.mode = 'live' AND st.retired_at IS NULL AND l.retired_at IS NULL
  AND (s.state IN ('due', 'waiting') OR w.reason IS NOT NULL AND s.state <> 'parked')

-- name: parked
SELECT st.channel, st.account, v.sku, s.park_reason
FROM listing_state s
JOIN listing l ON l.tenant_id = s.tenant_id AND l.id = s.listing_id
JOIN variant v ON v.tenant_id = l.tenant_id AND v.id = l.variant_id
JOIN store st ON st.tenant_id = s.tenant_id AND st.id = s.store_id
WHERE s.state = 'parked' AND l.retired_at IS NULL

-- name: paused
SELECT channel, account, pause_reason FROM store WHERE mode = 'paused' AND retired_at IS NULL

-- name: open_items$
-- One that was made while the clock was ahead has its time still before it: it ends when the clock has come so far.
SELECT count(*) FROM item WHERE finished_at IS NULL AND created_at <= clock_timestamp()

-- name: miscounted$
-- Updates whose count of open items is not the number of their open items.
SELECT count(*) FROM stock_update u
WHERE u.items_open <> (SELECT count(*) FROM item i WHERE i.tenant_id = u.tenant_id AND i.created_at = u.created_at
                                                     AND i.update_id = u.id AND i.finished_at IS NULL)

-- name: failed_items
-- Listings with items that were made before some time and ended without success, and what one of those was told.
SELECT st.channel, st.account, v.sku, min(i.message) AS message
FROM item i
JOIN variant v ON v.tenant_id = i.tenant_id AND v.id = i.variant_id
JOIN store st ON st.tenant_id = i.tenant_id AND st.id = i.store_id
WHERE NOT i.success AND i.created_at < :before
GROUP BY 1, 2, 3

-- name: effects
-- How many updates of a SKU in a warehouse were recorded, and how many took effect.
SELECT t.name AS tenant, v.sku, h.name AS warehouse, count(*) AS recorded, count(*) FILTER (WHERE c.applied) AS applied
FROM stock_change c
JOIN tenant t ON t.id = c.tenant_id
JOIN variant v ON v.tenant_id = c.tenant_id AND v.id = c.variant_id
JOIN warehouse h ON h.tenant_id = c.tenant_id AND h.id = c.warehouse_id
GROUP BY 1, 2, 3

-- name: held_by
-- The stores (channel, account) that processes of this name hold.
SELECT s.channel, s.account FROM store_lease l
JOIN worker w ON w.id = l.worker_id
JOIN store s ON s.id = l.store_id
WHERE w.name = :name

-- name: registered$
-- Whether a process of this name has registered.
SELECT EXISTS (SELECT FROM worker WHERE name = :name)

-- name: left_in_order$
-- Whether the processes of this name have given back all that they held, with nothing in doubt.
SELECT coalesce(bool_and(stopping), false) AND NOT EXISTS (
    SELECT FROM store_lease l JOIN worker w ON w.id = l.worker_id WHERE w.name = :name)
FROM worker WHERE name = :name
