-- name: server^
SELECT current_setting('server_version') AS version, clock_timestamp() AS now

-- name: partition_names
SELECT child.relname AS name
FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid JOIN pg_class parent ON parent.oid = inhparent
WHERE parent.relname = ANY(:parents::text[]) AND parent.relnamespace = current_schema()::regnamespace
