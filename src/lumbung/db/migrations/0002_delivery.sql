-- The whole delivery engine: outcomes that take several steps, retries with a share of their own, leases with a lifetime
-- each, the deadline of items, statistics a minute.

-- What a due listing is due for:
--   push      to be told its quantity
--   ask       what became of what was submitted (`handle`)
--   confirm   a call was unclear and can no longer take effect: read back, else send again
--   reconcile read back, and correct what oversells (dispatch/reconcile.py); observe: read back only
-- Lanes 4 to 6 are 1 to 3 for listings that have waited after a failed attempt: retries have a share of their own.
-- `doubtful_until`: until then a call that ended unclear may still take effect; `quantity_doubtful` is what it said, null
-- when that is not known (a lost holder's call, or several that differ). `quantity_floor`: the least that the marketplace
-- takes, to be sent instead of a lower one. `park_retry_at` is there as long as a row in listing_wait stands for it.
ALTER TABLE listing_state
    ADD COLUMN due_for         text        NOT NULL DEFAULT 'push'
        CHECK (due_for IN ('push', 'ask', 'confirm', 'reconcile', 'observe')),
    ADD COLUMN due_since       timestamptz,
    ADD COLUMN failing_since   timestamptz,
    ADD COLUMN park_retry_at   timestamptz,
    ADD COLUMN quantity_floor  bigint CHECK (quantity_floor >= 0),
    ADD COLUMN handle          text,
    ADD COLUMN handle_version  bigint,
    ADD COLUMN handle_quantity bigint,
    ADD COLUMN handle_at       timestamptz,
    ADD CONSTRAINT listing_state_handle CHECK (
        (handle IS NULL) = (handle_version IS NULL) AND (handle IS NULL) = (handle_quantity IS NULL)
        AND (handle IS NULL) = (handle_at IS NULL)),
    ADD CONSTRAINT listing_state_ask CHECK (due_for <> 'ask' OR handle IS NOT NULL),
    DROP CONSTRAINT listing_state_lane_check,
    ADD CONSTRAINT listing_state_lane_check CHECK (lane BETWEEN 0 AND 6);
ALTER TABLE listing_state RENAME COLUMN doubtful_at TO doubtful_until;
UPDATE listing_state s SET park_retry_at = w.due_at
FROM listing_wait w
WHERE s.state = 'parked' AND w.tenant_id = s.tenant_id AND w.listing_id = s.listing_id AND w.reason = 'parked';
UPDATE listing_state SET doubtful_until = doubtful_until + interval '60 seconds' WHERE doubtful_until IS NOT NULL;

ALTER TABLE listing_wait
    DROP CONSTRAINT listing_wait_check,
    DROP COLUMN handle,
    DROP CONSTRAINT listing_wait_reason_check,
    ADD CONSTRAINT listing_wait_reason_check
        CHECK (reason IN ('backoff', 'deferred', 'parked', 'submitted', 'confirmation', 'floor'));

-- A lease is valid until its worker's renewed_at plus lifetime_seconds: channels with long calls have long leases.
-- `quiesce_seconds`: how long a lost call of this store may still take effect, as its holder has found it.
-- `trouble`: why the store's breaker is open, and since when, for people and for the reasons of items.
ALTER TABLE store_lease
    ADD COLUMN lifetime_seconds real NOT NULL DEFAULT 15 CHECK (lifetime_seconds > 0),
    ADD COLUMN quiesce_seconds  real CHECK (quiesce_seconds >= 0),
    ADD COLUMN trouble          text,
    ADD COLUMN trouble_since    timestamptz,
    ADD CONSTRAINT store_lease_trouble CHECK ((trouble IS NULL) = (trouble_since IS NULL));

-- Who had a place before: a call of a listing that was removed may still take effect.
CREATE INDEX listing_retired ON listing (tenant_id, store_id, remote_variant) WHERE retired_at IS NOT NULL;

-- What a process can serve: only such count for the share of another that can serve as much as they.
ALTER TABLE worker ADD COLUMN channels text[] NOT NULL DEFAULT '{}';

-- A process that could take a store now. One that is valid for longer than a lifetime was written before the clock jumped
-- back.
CREATE VIEW live_worker AS
SELECT id, channels FROM worker
WHERE NOT stopping AND expires_at > clock_timestamp()
  AND expires_at <= clock_timestamp() + lifetime_seconds * interval '1 second';

-- All items of updates made before ended_until have ended: what the deadline's sweep need not look at again.
CREATE TABLE item_deadline (
    tenant_id   bigint      PRIMARY KEY REFERENCES tenant,
    ended_until timestamptz NOT NULL DEFAULT '-infinity',
    swept_at    timestamptz NOT NULL DEFAULT '-infinity'
);

-- What a store did in a minute. `slot` keeps writers apart: nobody waits for another's commit. `latency` counts items
-- delivered by the time since they were accepted; the upper limits of its buckets are model.LATENCY_SECONDS.
CREATE TABLE stats_minute (
    tenant_id bigint      NOT NULL,
    store_id  bigint      NOT NULL,
    minute    timestamptz NOT NULL,
    slot      smallint    NOT NULL,
    accepted  bigint      NOT NULL DEFAULT 0,
    pushed    bigint      NOT NULL DEFAULT 0,
    failed    bigint      NOT NULL DEFAULT 0,
    latency   bigint[]    NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, store_id, minute, slot)
) WITH (fillfactor = 70);
CREATE INDEX stats_minute_minute ON stats_minute USING brin (minute);

-- Which change of a link it was: recomputing settles what it has seen, not a newer change.
CREATE SEQUENCE link_seq;
ALTER TABLE store_warehouse ADD COLUMN changed bigint NOT NULL DEFAULT nextval('link_seq');

-- A due listing with everything that a call needs. `quantity_expected`: what the marketplace is believed to show.
CREATE VIEW due_listing AS
SELECT s.tenant_id, s.store_id, s.listing_id, s.lane, s.due_for, s.version_due, s.quantity_due, s.attempts,
       l.remote_variant, s.quantity_delivered, s.quantity_floor, s.quantity_doubtful,
       CASE WHEN s.delivered_at IS NULL OR s.observed_at > s.delivered_at THEN s.quantity_observed
            ELSE s.quantity_delivered END AS quantity_expected,
       extract(epoch FROM s.doubtful_until - now())::float8 AS doubt_left_seconds,
       s.handle, s.handle_version, s.handle_quantity,
       extract(epoch FROM now() - s.handle_at)::float8 AS handle_age_seconds,
       (SELECT jsonb_object_agg(c.location, c.quantity) FROM (
            SELECT location, sum(quantity) AS quantity FROM contribution c
            WHERE c.tenant_id = s.tenant_id AND c.listing_id = s.listing_id AND location IS NOT NULL
            GROUP BY location) c) AS locations
FROM listing_state s
JOIN listing l ON l.tenant_id = s.tenant_id AND l.id = s.listing_id
WHERE s.lane > 0;

-- Parked listings are few, and park_reason changes only when one is parked or brought back: updates stay HOT.
CREATE INDEX listing_state_parked ON listing_state (tenant_id, store_id, listing_id) WHERE park_reason IS NOT NULL;
