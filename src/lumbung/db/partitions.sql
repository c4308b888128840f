-- name: clock$
SELECT now()

-- name: partitions
-- The weeks of the histories by their names: also those that a crash left detached and not dropped.
SELECT parent, child.relname AS name, child.relispartition AS attached, coalesce(inhdetachpending, false) AS pending
FROM unnest(:parents::text[]) AS parent
JOIN pg_class child ON child.relname ~ ('^' || parent || '_[0-9]{4}_[0-9]{2}_[0-9]{2}$')
    AND child.relnamespace = current_schema()::regnamespace AND child.relkind = 'r'
LEFT JOIN pg_inherits ON inhrelid = child.oid
ORDER BY child.relname

-- name: partition_statements
-- The two statements that make and attach one partition, with their names quoted. Why dead rows do not call for a vacuum:
-- migrations/0007_vacuum_of_histories.sql.
SELECT 1 AS step, format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)'
              ' WITH (fillfactor = %s, autovacuum_vacuum_scale_factor = 5)',
              :name::text, :parent::text, :fillfactor::int) AS sql
UNION ALL
SELECT 2, format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
              :parent::text, :name::text, :starts::timestamptz, :ends::timestamptz)
ORDER BY step

-- name: take_turn!
-- One process at a time removes partitions. No parameters and no result, so that the driver sends it as a simple query:
-- the portal of another would keep its snapshot for as long as the transaction lasts, and FINALIZE waits for snapshots.
SELECT pg_advisory_xact_lock(hashtext('lumbung: remove partitions'))

-- name: has_open_updates$
SELECT EXISTS (SELECT FROM stock_update WHERE created_at >= :starts AND created_at < :ends AND items_open > 0)

-- name: set_lock_timeout$
-- Of the session: reset_lock_timeout undoes it, for the pool does not.
SELECT set_config('lock_timeout', :lock_timeout, false)

-- name: reset_lock_timeout!
RESET lock_timeout

-- name: removal_statements
-- What is still to be done to one partition, with names quoted.
SELECT 1 AS step, format('ALTER TABLE %I DETACH PARTITION %I %s', :parent::text, :name::text,
              CASE WHEN :pending::bool THEN 'FINALIZE' ELSE 'CONCURRENTLY' END) AS sql
WHERE :attached::bool
UNION ALL
SELECT 2, format('DROP TABLE %I', :name::text)
ORDER BY step
