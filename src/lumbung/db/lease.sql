-- Leases: who may send for a store. All times are the database's.

-- name: register_worker$
INSERT INTO worker (name, started_at, renewed_at, expires_at, lifetime_seconds)
VALUES (:name, clock_timestamp(), clock_timestamp(), clock_timestamp() + :lifetime_seconds::float8 * interval '1 second',
        :lifetime_seconds)
RETURNING id

-- name: renew_worker!
-- A worker that has expired, or is about to, is dead for good: its stores may be somebody else's already.
UPDATE worker SET renewed_at = clock_timestamp(),
                  expires_at = clock_timestamp() + lifetime_seconds * interval '1 second'
WHERE id = :id AND expires_at > clock_timestamp() + lifetime_seconds * interval '0.05 second'
  AND expires_at <= clock_timestamp() + lifetime_seconds * interval '1 second'

-- name: stop_worker!
UPDATE worker SET stopping = true, expires_at = clock_timestamp() WHERE id = :id

-- name: held
SELECT store_id, epoch FROM store_lease WHERE worker_id = :worker_id

-- name: claim
-- Takes stores that nobody holds, or whose holder has expired: past, or further ahead than a lifetime (then the clock
-- has jumped). A holder that expired may have left calls in flight: until doubt_until they may still take effect. It is
-- never further ahead than the quiesce time: what is, was written before the clock jumped back.
-- "Nobody" is asked of the lease's own row: when somebody else has just taken it, that row is looked at again, but the
-- outer join then has no worker for it.
WITH free AS (
    SELECT l.store_id, s.channel, coalesce(q.seconds, 0) * interval '1 second' AS quiesce,
           CASE WHEN w.id IS NOT NULL AND NOT w.stopping
                THEN least(w.expires_at, clock_timestamp()) + coalesce(q.seconds, 0) * interval '1 second' END AS doubt_until
    FROM store_lease l
    JOIN store s ON s.id = l.store_id
    JOIN tenant t ON t.id = s.tenant_id
    LEFT JOIN worker w ON w.id = l.worker_id
    LEFT JOIN unnest(:channels::text[], :quiesce_seconds::float8[]) AS q (channel, seconds) ON q.channel = s.channel
    WHERE l.store_id = ANY(:store_ids::bigint[])
      AND s.mode = 'live' AND s.retired_at IS NULL AND t.disabled_at IS NULL
      AND s.channel = ANY(:channels::text[])
      AND (l.worker_id IS NULL OR w.expires_at < clock_timestamp()
           OR w.expires_at > clock_timestamp() + w.lifetime_seconds * interval '1 second')
    ORDER BY l.store_id
    LIMIT :limit
    FOR NO KEY UPDATE OF l SKIP LOCKED
)
UPDATE store_lease l
SET worker_id = :worker_id, epoch = l.epoch + 1, acquired_at = clock_timestamp(),
    doubt_until = CASE WHEN l.doubt_until > clock_timestamp() + free.quiesce THEN clock_timestamp() + free.quiesce
                       ELSE greatest(free.doubt_until, l.doubt_until) END
FROM free, store s
WHERE l.store_id = free.store_id AND s.id = l.store_id
RETURNING l.store_id, l.tenant_id, l.epoch, s.channel, s.name, s.credentials,
          greatest(0, extract(epoch FROM l.doubt_until - clock_timestamp()))::float8 AS doubt_seconds

-- name: give_back!
UPDATE store_lease SET worker_id = NULL
WHERE worker_id = :worker_id AND store_id = ANY(:store_ids::bigint[])

-- name: forget_workers!
-- Rows of processes that are long gone; leases that still name them are free.
WITH gone AS (
    SELECT id FROM worker WHERE expires_at < clock_timestamp() - interval '1 day' FOR UPDATE SKIP LOCKED
), freed AS (
    UPDATE store_lease SET worker_id = NULL WHERE worker_id IN (SELECT id FROM gone) RETURNING store_id
)
DELETE FROM worker WHERE id IN (SELECT id FROM gone) AND NOT EXISTS (SELECT FROM freed)
