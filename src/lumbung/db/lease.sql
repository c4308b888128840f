-- Leases: who may send for a store. All times are the database's. A lease is valid until its worker's renewed_at plus the
-- lease's own lifetime; it has expired when that is past, or when renewed_at is ahead of the clock by more than a lifetime
-- (then the clock has jumped back).

-- name: register_worker$
INSERT INTO worker (name, started_at, renewed_at, expires_at, lifetime_seconds, channels)
VALUES (:name, clock_timestamp(), clock_timestamp(), clock_timestamp() + :lifetime_seconds::float8 * interval '1 second',
        :lifetime_seconds, :channels::text[])
RETURNING id

-- name: renew_worker^
-- A late renewal is taken too: who has claimed a store meanwhile did so with this row locked, and `held` tells. `live`:
-- the processes that can take whatever store this one can; another (an older release, say) would leave its share unserved.
WITH mine AS (
    UPDATE worker SET renewed_at = clock_timestamp(),
                      expires_at = clock_timestamp() + lifetime_seconds * interval '1 second'
    WHERE id = :id AND NOT stopping
    RETURNING id, channels
)
SELECT (SELECT count(*) FROM mine) AS renewed,
       1 + (SELECT count(*) FROM live_worker w WHERE w.id <> :id AND w.channels @> (SELECT channels FROM mine)) AS live

-- name: stop_worker!
UPDATE worker SET stopping = true, expires_at = clock_timestamp() WHERE id = :id

-- name: held
SELECT store_id, epoch FROM store_lease WHERE worker_id = :worker_id

-- name: claim
-- Takes stores that nobody holds, or whose lease has expired. The holder's row is locked before it is judged: a renewal
-- that is under way is waited for, one that comes later waits for us and then finds the store gone. A holder that expired
-- may have left calls in flight: until doubt_until, the quiesce time from now, they may still take effect. Counted from
-- now, not from when the lease ended: a clock that has jumped forwards makes leases look long over that were held a moment
-- ago. What is further ahead than that and a lifetime was written before the clock jumped back.
-- Whether the holder looks expired is asked of the lease's own row: when somebody else has just taken it, that row is
-- looked at again.
WITH known AS (
    SELECT * FROM unnest(:channels::text[], :quiesce_seconds::float8[], :lifetimes::float8[])
        AS q (channel, quiesce_seconds, lifetime_seconds)
), free AS MATERIALIZED (
    SELECT l.store_id, l.worker_id, l.lifetime_seconds, q.lifetime_seconds AS new_lifetime_seconds,
           coalesce(l.quiesce_seconds, q.quiesce_seconds) * interval '1 second' AS quiesce
    FROM store_lease l
    JOIN store s ON s.id = l.store_id
    JOIN tenant t ON t.id = s.tenant_id
    JOIN known q ON q.channel = s.channel
    WHERE l.store_id = ANY(:store_ids::bigint[])
      AND s.mode = 'live' AND s.retired_at IS NULL AND t.disabled_at IS NULL
      AND (l.worker_id IS NULL OR EXISTS (
               SELECT FROM worker w
               WHERE w.id = l.worker_id
                 AND (w.stopping OR w.renewed_at + l.lifetime_seconds * interval '1 second' < clock_timestamp()
                      OR w.renewed_at > clock_timestamp() + l.lifetime_seconds * interval '1 second')))
    ORDER BY l.store_id
    LIMIT :limit
    FOR NO KEY UPDATE OF l SKIP LOCKED
), holder AS MATERIALIZED (
    SELECT w.id, w.renewed_at, w.stopping FROM worker w
    WHERE w.id IN (SELECT worker_id FROM free)
    ORDER BY w.id
    FOR SHARE OF w
)
UPDATE store_lease l
SET worker_id = :worker_id, epoch = l.epoch + 1, acquired_at = clock_timestamp(),
    lifetime_seconds = free.new_lifetime_seconds,
    doubt_until = CASE
        WHEN l.doubt_until IS NOT NULL
            THEN greatest(least(l.doubt_until,
                                clock_timestamp() + free.quiesce + free.lifetime_seconds * interval '1 second'),
                          CASE WHEN NOT h.stopping THEN clock_timestamp() + free.quiesce END)
        WHEN NOT h.stopping THEN clock_timestamp() + free.quiesce END
FROM free LEFT JOIN holder h ON h.id = free.worker_id, store s LEFT JOIN channel_app a ON a.id = s.channel_app_id
WHERE l.store_id = free.store_id AND s.id = l.store_id
  AND (h.id IS NULL OR h.stopping OR h.renewed_at + free.lifetime_seconds * interval '1 second' < clock_timestamp()
       OR h.renewed_at > clock_timestamp() + free.lifetime_seconds * interval '1 second')
RETURNING l.store_id, l.tenant_id, l.epoch, s.channel, s.name, s.channel_app_id, s.credentials, s.tokens,
          a.credentials AS application_credentials,
          l.lifetime_seconds::float8 AS lifetime_seconds, l.trouble IS NOT NULL AS in_trouble,
          greatest(0, extract(epoch FROM l.doubt_until - clock_timestamp()))::float8 AS doubt_seconds

-- name: note_quiesce!
-- What the holder has found in the store's own settings, for whoever takes over.
UPDATE store_lease SET quiesce_seconds = :seconds::float8
WHERE store_id = :store_id AND epoch = :epoch AND quiesce_seconds IS DISTINCT FROM :seconds::float8::real

-- name: note_trouble!
-- Why the store cannot be reached, or NULL again.
UPDATE store_lease
SET trouble = :trouble::text,
    trouble_since = CASE WHEN :trouble::text IS NOT NULL THEN coalesce(trouble_since, clock_timestamp()) END
WHERE store_id = :store_id AND epoch = :epoch

-- name: give_back!
-- In good order, so that whoever is next need not think of calls in flight; but of those that the holder remembers as unclear,
-- for so many seconds yet (0: none): what the listings' own rows say of them may look long past, by a clock that has jumped.
UPDATE store_lease l
SET worker_id = NULL,
    doubt_until = CASE WHEN r.seconds > 0
                       THEN greatest(l.doubt_until, clock_timestamp() + r.seconds * interval '1 second')
                       ELSE l.doubt_until END
FROM unnest(:store_ids::bigint[], :doubt_seconds::float8[]) AS r (store_id, seconds)
WHERE l.worker_id = :worker_id AND l.store_id = r.store_id

-- name: forget_workers!
-- Rows of processes that are long gone. One that a lease still names stays: its calls are in doubt for whoever takes that
-- store, however long ago it seems that it went (a clock that jumped forwards).
DELETE FROM worker WHERE id IN (
    SELECT w.id FROM worker w
    WHERE w.expires_at < clock_timestamp() - interval '1 day'
      AND NOT EXISTS (SELECT FROM store_lease l WHERE l.worker_id = w.id)
    FOR UPDATE OF w SKIP LOCKED)

-- name: swap_tokens$
-- A new pair in place of the one that it was traded for, whoever holds the lease by now: dropping it would lose the store.
UPDATE store SET tokens = :tokens, tokens_digest = :digest, access_expires_at = :access_expires_at,
                 refresh_expires_at = :refresh_expires_at
WHERE tenant_id = :tenant_id AND id = :store_id AND tokens_digest IS NOT DISTINCT FROM :old_digest::bytea
RETURNING true

-- name: read_tokens^
SELECT tokens, tokens_digest FROM store WHERE tenant_id = :tenant_id AND id = :store_id
