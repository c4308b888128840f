-- Limits wider than a store: each row is a bucket that empties at calls_per_second; calls_reserved is what stands in it.

-- name: reserve^
-- Takes up to `calls` calls out of every budget of an application, at most what the fullest one has room for, or none
-- while it is blocked. `wait_seconds`: when there may be room again. A refilled_at or blocked_until far ahead was written
-- before the clock jumped back.
WITH held AS MATERIALIZED (
    SELECT id, calls_per_second, burst, calls_reserved, refilled_at, blocked_until
    FROM budget WHERE channel_app_id = :channel_app_id ORDER BY id FOR NO KEY UPDATE
), level AS (
    SELECT id, burst, calls_per_second,
           greatest(0, calls_reserved - calls_per_second * greatest(0, extract(epoch FROM clock_timestamp() - refilled_at)::float8)) AS used,
           CASE WHEN blocked_until > clock_timestamp() AND blocked_until <= clock_timestamp() + :block_seconds_max * interval '1 second'
                THEN extract(epoch FROM blocked_until - clock_timestamp())::float8 ELSE 0 END AS blocked_seconds
    FROM held
), granted AS (
    SELECT count(*) AS budgets,
           CASE WHEN max(blocked_seconds) > 0 THEN 0
                ELSE greatest(0, least(:calls::int, floor(min(burst - used))))::int END AS calls,
           greatest(max(blocked_seconds), max((used + 1 - burst) / calls_per_second), 0) AS wait_seconds
    FROM level
), taken AS (
    UPDATE budget b SET calls_reserved = l.used + g.calls, refilled_at = clock_timestamp()
    FROM level l, granted g WHERE b.id = l.id
)
SELECT budgets, coalesce(calls, 0) AS calls, coalesce(wait_seconds, 0)::float8 AS wait_seconds FROM granted

-- name: block!
-- The marketplace asked the whole application to wait. Never shortens a wait, unless that was written before the clock
-- jumped back.
UPDATE budget
SET blocked_until = greatest(clock_timestamp() + :seconds::float8 * interval '1 second',
        CASE WHEN blocked_until <= clock_timestamp() + :block_seconds_max * interval '1 second' THEN blocked_until END)
WHERE channel_app_id = :channel_app_id

-- name: put_budget!
INSERT INTO budget (channel_app_id, name, calls_per_second, burst)
VALUES (:channel_app_id, :name, :calls_per_second, :burst)
ON CONFLICT (channel_app_id, name) DO UPDATE SET calls_per_second = EXCLUDED.calls_per_second, burst = EXCLUDED.burst
