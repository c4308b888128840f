-- Counters of the history: exact totals and a way to any offset without counting records (db/history.py reads them).
--
--   stock_update --triggers, same transaction--> history_delta --roll_up--> history_cell, history_span
--
-- A counter says how many records were made in one 10 s and last updated in another. The triggers see every statement
-- that makes, ends or removes records, whoever runs it, also processes of the version before. What a snapshot sees of
-- the records it sees of the counters, so totals are exact at any moment, in the middle of a roll-up too.

-- What is not rolled up yet. Each backend adds to rows of its own (slot) and roll-up takes those of a time that is over
-- (written): so nobody waits here for another's commit.
CREATE TABLE history_delta (
    tenant_id bigint      NOT NULL,
    written   timestamptz NOT NULL,
    slot      integer     NOT NULL,
    created   timestamptz NOT NULL,
    updated   timestamptz NOT NULL,
    records   bigint      NOT NULL,
    PRIMARY KEY (tenant_id, written, slot, created, updated)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1);

-- Rolled up: the same by 10 s, of hours that have too many records to be read through (history_span.has_cells).
CREATE TABLE history_cell (
    tenant_id bigint      NOT NULL,
    created   timestamptz NOT NULL,
    updated   timestamptz NOT NULL,
    records   bigint      NOT NULL,
    PRIMARY KEY (tenant_id, created, updated)
) WITH (fillfactor = 70);

-- Rolled up to hours (3,600 s) and days. All records of a span were last updated from first_updated to last_updated,
-- both in 10 s: bounds that may be too wide, never too narrow.
CREATE TABLE history_span (
    tenant_id     bigint      NOT NULL,
    seconds       integer     NOT NULL CHECK (seconds IN (3600, 86400)),
    starts        timestamptz NOT NULL,
    records       bigint      NOT NULL,
    first_updated timestamptz NOT NULL,
    last_updated  timestamptz NOT NULL,
    has_cells     boolean     NOT NULL,
    PRIMARY KEY (tenant_id, seconds, starts),
    CHECK (seconds = 3600 OR NOT has_cells)
) WITH (fillfactor = 50);
CREATE INDEX history_span_has_cells ON history_span (tenant_id, starts) WHERE has_cells;

-- Records that were updated within the 10 s that a filter cuts. A record enters when it is first updated.
CREATE INDEX stock_update_updated_at ON stock_update (tenant_id, updated_at, created_at) WHERE updated_at <> created_at;

-- History before this is hidden: it is being dropped.
ALTER TABLE tenant ADD COLUMN history_kept_from timestamptz;

-- The time at which the 10 s, the hour or the day of a time begins, in UTC.
CREATE FUNCTION history_bucket(seconds integer, at timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN date_bin(seconds * interval '1 second', at, '2000-01-01 00:00:00+00');

CREATE FUNCTION count_history() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    now_written CONSTANT timestamptz := history_bucket(10, clock_timestamp());
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO history_delta AS d
        SELECT tenant_id, now_written, pg_backend_pid(), history_bucket(10, created_at), history_bucket(10, updated_at), count(*)
        FROM after GROUP BY 1, 4, 5 ORDER BY 1, 4, 5
        ON CONFLICT (tenant_id, written, slot, created, updated) DO UPDATE SET records = d.records + EXCLUDED.records;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO history_delta AS d
        SELECT tenant_id, now_written, pg_backend_pid(), history_bucket(10, created_at), history_bucket(10, updated_at), -count(*)
        FROM before GROUP BY 1, 4, 5 ORDER BY 1, 4, 5
        ON CONFLICT (tenant_id, written, slot, created, updated) DO UPDATE SET records = d.records + EXCLUDED.records;
    ELSE
        INSERT INTO history_delta AS d
        SELECT tenant_id, now_written, pg_backend_pid(), history_bucket(10, created_at), history_bucket(10, updated_at), sum(n)
        FROM (SELECT tenant_id, created_at, updated_at, 1 AS n FROM after
              UNION ALL SELECT tenant_id, created_at, updated_at, -1 FROM before) changed
        GROUP BY 1, 4, 5 HAVING sum(n) <> 0 ORDER BY 1, 4, 5
        ON CONFLICT (tenant_id, written, slot, created, updated) DO UPDATE SET records = d.records + EXCLUDED.records;
    END IF;
    RETURN NULL;
END $$;
-- These lock stock_update against writing until the counters below are there.
CREATE TRIGGER count_made AFTER INSERT ON stock_update REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION count_history();
CREATE TRIGGER count_updated AFTER UPDATE ON stock_update REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION count_history();
CREATE TRIGGER count_removed AFTER DELETE ON stock_update REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION count_history();

-- The records that are there already: hours that still grow, or are too many to be read through, get cells.
INSERT INTO history_cell
SELECT tenant_id, history_bucket(10, created_at), history_bucket(10, updated_at), count(*)
FROM stock_update GROUP BY 1, 2, 3;

INSERT INTO history_span
SELECT tenant_id, seconds, history_bucket(seconds, created), sum(records), min(updated), max(updated),
       seconds = 3600 AND (sum(records) > 10000 OR max(created) > now() - interval '2 days')
FROM history_cell, unnest(ARRAY[3600, 86400]) AS seconds
GROUP BY 1, 2, 3;

DELETE FROM history_cell c USING history_span s
WHERE s.tenant_id = c.tenant_id AND s.seconds = 3600 AND s.starts = history_bucket(3600, c.created) AND NOT s.has_cells;
