-- Applications of channels: an app key that many stores share, of one tenant or of the installation (tenant_id null).

-- name: add_application$
-- Nothing when there is one of this name, or of this identity.
INSERT INTO channel_app (tenant_id, channel, name, identity, credentials)
VALUES (:tenant_id::bigint, :channel, :name, :identity::text, ''::bytea)
ON CONFLICT DO NOTHING
RETURNING id

-- name: application_of_identity^
SELECT a.id, a.name, t.name AS tenant FROM channel_app a LEFT JOIN tenant t ON t.id = a.tenant_id
WHERE a.channel = :channel AND a.identity = :identity AND a.retired_at IS NULL

-- name: set_application_credentials!
-- Encrypted for this very row, so they are written after its id is known.
UPDATE channel_app SET credentials = :credentials WHERE id = :id

-- name: applications_for
-- What the stores of a tenant may use, of all channels or one, the tenant's own first; of all tenants without one.
SELECT a.id, a.tenant_id, t.name AS tenant, a.channel, a.name, a.identity, a.credentials, a.created_at,
       b.calls_per_second::float8 AS calls_per_second, b.burst, b.blocked_until,
       (SELECT count(*) FROM store s WHERE s.channel_app_id = a.id AND s.retired_at IS NULL) AS stores
FROM channel_app a
LEFT JOIN tenant t ON t.id = a.tenant_id
LEFT JOIN budget b ON b.channel_app_id = a.id AND b.name = 'calls'
WHERE a.retired_at IS NULL
  AND (:tenant_id::bigint IS NULL OR a.tenant_id IS NULL OR a.tenant_id = :tenant_id)
  AND (:channel::text IS NULL OR a.channel = :channel)
ORDER BY a.tenant_id IS NULL, a.id

-- name: lock_application
-- Against a store that begins to use it while it is being removed, and the reverse.
SELECT id FROM channel_app WHERE id = :id AND retired_at IS NULL FOR UPDATE

-- name: retire_application!
UPDATE channel_app SET retired_at = now() WHERE id = :id AND retired_at IS NULL

-- name: stores_of_application
SELECT id, tenant_id, channel, name, mode, pause_reason, credentials, channel_app_id, tokens,
       NULL::bytea AS application_credentials, account, refresh_expires_at
FROM store WHERE channel_app_id = :id AND retired_at IS NULL ORDER BY id
