-- name: server_version_number$
SELECT current_setting('server_version_num')::int

-- name: create_migration_table!
CREATE TABLE IF NOT EXISTS migration (
    number     integer     PRIMARY KEY,
    name       text        NOT NULL,
    digest     bytea       NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- name: lock_migration_table!
-- Readers (readyz, doctor) are not kept out.
LOCK TABLE migration IN SHARE ROW EXCLUSIVE MODE

-- name: is_writable$
SELECT NOT current_setting('transaction_read_only')::bool

-- name: digest_of$
SELECT digest FROM migration WHERE number = :number

-- name: record_migration!
INSERT INTO migration (number, name, digest) VALUES (:number, :name, :digest)
