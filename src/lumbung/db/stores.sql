-- name: add_store$
INSERT INTO store (tenant_id, channel_app_id, channel, name, account, mode, credentials)
VALUES (:tenant_id, :channel_app_id::bigint, :channel, :name, :account, :mode, ''::bytea)
ON CONFLICT (tenant_id, name) WHERE retired_at IS NULL DO NOTHING
RETURNING id

-- name: store_of_account^
-- The live store that is an account already, of whatever tenant: the tenant's own first.
SELECT s.name, t.name AS tenant, s.tenant_id FROM store s JOIN tenant t ON t.id = s.tenant_id
WHERE s.channel = :channel AND s.account = :account AND s.retired_at IS NULL
ORDER BY s.tenant_id <> :tenant_id, s.id LIMIT 1

-- name: set_credentials!
-- Encrypted for this very row, so they are written after its id is known.
UPDATE store SET credentials = :credentials WHERE tenant_id = :tenant_id AND id = :id

-- name: add_lease_row!
INSERT INTO store_lease (store_id, tenant_id) VALUES (:id, :tenant_id)

-- name: set_account!
UPDATE store SET account = :account WHERE tenant_id = :tenant_id AND id = :id

-- name: revoke_lease!
-- The holder drops the store at its next renewal, because the epoch is another one, and gives the lease back: until then
-- it stays the holder, so that no two send at once. What it has in flight may take effect until doubt_until.
UPDATE store_lease l
SET epoch = l.epoch + 1,
    doubt_until = greatest(l.doubt_until, (SELECT w.renewed_at FROM worker w WHERE w.id = l.worker_id)
        + (l.lifetime_seconds + greatest(:quiesce_seconds::float8, l.quiesce_seconds)) * interval '1 second')
WHERE l.store_id = :id

-- name: find_store^
-- A live store by name, or by id written as digits.
SELECT s.id, s.tenant_id, s.channel, s.name, s.mode, s.pause_reason, s.credentials, s.channel_app_id, s.tokens,
       a.credentials AS application_credentials, s.account, s.refresh_expires_at
FROM store s LEFT JOIN channel_app a ON a.id = s.channel_app_id
WHERE s.tenant_id = :tenant_id AND s.retired_at IS NULL AND (s.name = :reference OR s.id::text = :reference)
ORDER BY s.name = :reference DESC LIMIT 1

-- name: list_stores
SELECT s.id, s.tenant_id, t.name AS tenant, s.channel, a.name AS application, s.name, s.mode, s.pause_reason,
       s.created_at, s.refresh_expires_at AS authorised_until,
       (SELECT count(*) FROM listing l WHERE l.tenant_id = s.tenant_id AND l.store_id = s.id AND l.retired_at IS NULL) AS listings,
       (SELECT coalesce(jsonb_object_agg(w.name, sw.location), '{}') FROM store_warehouse sw
        JOIN warehouse w ON w.tenant_id = sw.tenant_id AND w.id = sw.warehouse_id
        WHERE sw.tenant_id = s.tenant_id AND sw.store_id = s.id AND sw.retired_at IS NULL) AS warehouses
FROM store s JOIN tenant t ON t.id = s.tenant_id LEFT JOIN channel_app a ON a.id = s.channel_app_id
WHERE s.retired_at IS NULL AND (:tenant_id::bigint IS NULL OR s.tenant_id = :tenant_id)
ORDER BY s.id

-- name: set_mode!
UPDATE store SET mode = :mode, pause_reason = NULL, mode_before_pause = NULL WHERE tenant_id = :tenant_id AND id = :id

-- name: pause_store!
UPDATE store SET mode = 'paused', pause_reason = :reason,
                 mode_before_pause = CASE WHEN mode = 'paused' THEN mode_before_pause ELSE mode END
WHERE tenant_id = :tenant_id AND id = :id AND retired_at IS NULL

-- name: pause_held_store$
-- Both rows are locked first: an operator who is mending the store at this moment is waited for, and then the epoch is
-- another one. The store before its lease, as operators lock them.
WITH held AS MATERIALIZED (
    SELECT s.id FROM store s JOIN store_lease l ON l.store_id = s.id
    WHERE s.tenant_id = :tenant_id AND s.id = :id AND s.retired_at IS NULL AND l.epoch = :epoch
    FOR NO KEY UPDATE OF s FOR SHARE OF l
)
UPDATE store SET mode = 'paused', pause_reason = :reason,
                 mode_before_pause = CASE WHEN mode = 'paused' THEN mode_before_pause ELSE mode END
WHERE tenant_id = :tenant_id AND id = (SELECT id FROM held)
RETURNING id

-- name: lock_stores
-- Before their leases, as operators lock them: for whoever is going to pause some in a transaction that locks leases.
SELECT id FROM store WHERE id = ANY(:ids::bigint[]) ORDER BY id FOR NO KEY UPDATE

-- name: resume_store$
UPDATE store SET mode = mode_before_pause, pause_reason = NULL, mode_before_pause = NULL
WHERE tenant_id = :tenant_id AND id = :id AND mode = 'paused'
RETURNING mode

-- name: retire_store!
UPDATE store SET retired_at = now() WHERE tenant_id = :tenant_id AND id = :id AND retired_at IS NULL

-- name: lock_links
-- Before a change of who serves a store: waits for transactions that add listings to it (their foreign keys hold the
-- row), so that recomputing the store's listings afterwards misses none.
SELECT id FROM store WHERE tenant_id = :tenant_id AND id = :id FOR UPDATE

-- name: link_warehouse!
INSERT INTO store_warehouse (tenant_id, store_id, warehouse_id, location)
VALUES (:tenant_id, :store_id, :warehouse_id, :location)
ON CONFLICT (tenant_id, store_id, warehouse_id) DO UPDATE SET
    location = EXCLUDED.location, retired_at = NULL, settled_at = NULL, changed = nextval('link_seq')

-- name: unlink_warehouse!
UPDATE store_warehouse SET retired_at = now(), settled_at = NULL, changed = nextval('link_seq')
WHERE tenant_id = :tenant_id AND store_id = :store_id AND warehouse_id = :warehouse_id AND retired_at IS NULL

-- name: newest_change$
-- Changes of a store's links are numbered in the order in which they commit: each is made under the store's lock.
SELECT coalesce(max(changed), 0) FROM store_warehouse WHERE tenant_id = :tenant_id AND store_id = :store_id

-- name: settle_links!
-- Those that were seen before the listings were recomputed: a newer change settles by itself.
UPDATE store_warehouse SET settled_at = now()
WHERE tenant_id = :tenant_id AND store_id = :store_id AND settled_at IS NULL AND changed <= :newest

-- name: unsettled_stores
-- Stores whose listings were not all recomputed after a change of their warehouses.
SELECT DISTINCT s.tenant_id, s.id, s.name FROM store_warehouse sw
JOIN store s ON s.tenant_id = sw.tenant_id AND s.id = sw.store_id
WHERE sw.settled_at IS NULL AND s.retired_at IS NULL AND sw.created_at < now() - interval '1 minute'

-- name: links_of
SELECT warehouse_id, location FROM store_warehouse
WHERE tenant_id = :tenant_id AND store_id = :store_id AND retired_at IS NULL

-- name: has_unsettled_links$
SELECT EXISTS (SELECT FROM store_warehouse WHERE tenant_id = :tenant_id AND store_id = :store_id AND settled_at IS NULL)

-- name: unretired_stores
-- Of all tenants.
SELECT s.id, s.tenant_id, s.channel, s.name, s.mode, s.pause_reason, s.credentials, s.channel_app_id, s.tokens,
       a.credentials AS application_credentials, s.account, s.refresh_expires_at
FROM store s LEFT JOIN channel_app a ON a.id = s.channel_app_id
WHERE s.retired_at IS NULL ORDER BY s.id

-- name: put_tokens!
-- A pair that a person brought, whatever is there.
UPDATE store SET tokens = :tokens, tokens_digest = :digest, access_expires_at = :access_expires_at,
                 refresh_expires_at = :refresh_expires_at
WHERE tenant_id = :tenant_id AND id = :id

-- name: forget_location$
-- The marketplace no longer has a location: nothing is told to it there any more.
WITH gone AS (
    DELETE FROM former_location
    WHERE tenant_id = :tenant_id AND store_id = :store_id AND location = :location
    RETURNING remote_variant
)
SELECT count(*) FROM gone
