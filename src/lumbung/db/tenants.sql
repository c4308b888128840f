-- name: add_tenant$
INSERT INTO tenant (name, unknown_sku, channel_stock_limit)
VALUES (:name, :unknown_sku, :channel_stock_limit)
ON CONFLICT (name) DO NOTHING
RETURNING id

-- name: find_tenant^
-- By name, or by id written as digits.
SELECT id, name, unknown_sku, channel_stock_limit FROM tenant WHERE name = :reference OR id::text = :reference
ORDER BY name = :reference DESC LIMIT 1

-- name: set_item_deadline$
-- Returns what it was.
UPDATE tenant SET history_item_deadline_seconds = :seconds
FROM (SELECT id, history_item_deadline_seconds AS seconds FROM tenant WHERE id = :id FOR NO KEY UPDATE) before
WHERE tenant.id = before.id
RETURNING before.seconds

-- name: list_tenants
SELECT t.id, t.name, t.unknown_sku, t.channel_stock_limit, t.history_item_deadline_seconds AS item_deadline_seconds, t.disabled_at, t.created_at,
       (SELECT count(*) FROM partner p WHERE p.tenant_id = t.id) AS partners,
       (SELECT count(*) FROM store s WHERE s.tenant_id = t.id AND s.retired_at IS NULL) AS stores,
       (SELECT count(*) FROM variant v WHERE v.tenant_id = t.id AND v.retired_at IS NULL) AS variants
FROM tenant t ORDER BY t.id

-- name: add_partner$
INSERT INTO partner (id, tenant_id, name, secret, strict) VALUES (:id, :tenant_id, :name, :secret, :strict)
ON CONFLICT (id) DO NOTHING
RETURNING id

-- name: find_partner^
-- An old secret that has expired is not returned.
SELECT p.id, p.tenant_id, p.name, p.secret, p.strict,
       CASE WHEN p.old_secret_expires_at > now() THEN p.old_secret END AS old_secret,
       p.disabled_at IS NOT NULL AS disabled, coalesce(p.trace_until > now(), false) AS traced
FROM partner p WHERE p.id = :id

-- name: list_partners
SELECT p.id, p.tenant_id, t.name AS tenant, p.name, p.strict, p.disabled_at, p.created_at,
       CASE WHEN p.old_secret_expires_at > now() THEN p.old_secret_expires_at END AS old_secret_expires_at
FROM partner p JOIN tenant t ON t.id = p.tenant_id ORDER BY p.id

-- name: rotate_partner$
-- Nothing while an old secret is still live: it would be lost.
UPDATE partner SET old_secret = secret, old_secret_expires_at = now() + :old_expires_seconds * interval '1 second', secret = :secret
WHERE id = :id AND (old_secret IS NULL OR old_secret_expires_at <= now())
RETURNING old_secret_expires_at

-- name: finish_rotation!
UPDATE partner SET old_secret = NULL, old_secret_expires_at = NULL WHERE id = :id AND old_secret IS NOT NULL

-- name: partner_secrets
-- For a look whether the key file opens them all.
SELECT id, secret FROM partner ORDER BY id

-- name: set_partner_disabled!
UPDATE partner SET disabled_at = CASE WHEN :disabled THEN coalesce(disabled_at, now()) END WHERE id = :id

-- name: trace_partner!
UPDATE partner SET trace_until = now() + :seconds * interval '1 second' WHERE id = :id

-- name: remember_signature
-- True when the signature was not seen before.
INSERT INTO seen_signature (tenant_id, partner_id, signature) VALUES (:tenant_id, :partner_id, :signature)
ON CONFLICT DO NOTHING RETURNING true AS fresh

-- name: forget_signatures!
DELETE FROM seen_signature WHERE seen_at < now() - :seconds * interval '1 second'

-- name: add_warehouse$
-- The name "default" is always taken.
INSERT INTO warehouse (tenant_id, name)
SELECT :tenant_id::bigint, :name::text WHERE :name::text <> 'default'
ON CONFLICT (tenant_id, name) DO NOTHING
RETURNING id

-- name: add_default_warehouse!
INSERT INTO warehouse (tenant_id, id, name) VALUES (:tenant_id, 0, 'default')

-- name: list_warehouses
SELECT w.tenant_id, t.name AS tenant, w.id, w.name, w.created_at, w.retired_at
FROM warehouse w JOIN tenant t ON t.id = w.tenant_id
WHERE :tenant_id::bigint IS NULL OR w.tenant_id = :tenant_id
ORDER BY w.tenant_id, w.id

-- name: unknown_skus
SELECT sku, times, first_at, last_at FROM unknown_sku WHERE tenant_id = :tenant_id ORDER BY times DESC, sku LIMIT :limit

-- name: add_audit!
INSERT INTO audit (tenant_id, actor, action, subject, detail) VALUES (:tenant_id, :actor, :action, :subject, :detail)
