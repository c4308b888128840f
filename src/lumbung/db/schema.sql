-- name: has_migration_table$
SELECT to_regclass('migration') IS NOT NULL

-- name: newest_migration$
SELECT coalesce(max(number), 0) FROM migration
