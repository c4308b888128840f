-- name: server^
SELECT current_setting('server_version') AS version, clock_timestamp() AS now

-- name: delivering^
-- Who delivers, and what for: live workers, live stores, what is due, waits or is parked in them.
SELECT (SELECT count(*) FROM live_worker) AS workers,
       (SELECT count(*) FROM store WHERE mode = 'live' AND retired_at IS NULL) AS live_stores,
       (SELECT count(*) FROM listing_state WHERE lane > 0) AS due,
       (SELECT count(*) FROM listing_wait WHERE reason <> 'parked') AS waiting
