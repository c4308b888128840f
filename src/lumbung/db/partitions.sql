-- name: clock$
SELECT now()

-- name: partitions
SELECT child.relname AS name
FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid JOIN pg_class parent ON parent.oid = inhparent
WHERE parent.relname = ANY(:parents::text[]) AND parent.relnamespace = current_schema()::regnamespace

-- name: partition_statements
-- The two statements that make and attach one partition, with their names quoted.
SELECT 1 AS step, format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES) WITH (fillfactor = %s)',
              :name::text, :parent::text, :fillfactor::int) AS sql
UNION ALL
SELECT 2, format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
              :parent::text, :name::text, :starts::timestamptz, :ends::timestamptz)
ORDER BY step
