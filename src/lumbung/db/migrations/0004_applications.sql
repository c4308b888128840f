-- Applications of channels by name, locations that a listing was shown at, tokens that grow old.

-- A removed application's name is free again; the row stays, because stores name it.
ALTER TABLE channel_app DROP CONSTRAINT channel_app_tenant_id_channel_name_key;
CREATE UNIQUE INDEX channel_app_name ON channel_app (tenant_id, channel, name) NULLS NOT DISTINCT
    WHERE retired_at IS NULL;
CREATE INDEX store_channel_app ON store (channel_app_id) WHERE channel_app_id IS NOT NULL AND retired_at IS NULL;

-- Tokens of a live store that nobody uses must be renewed all the same before they are dead.
CREATE INDEX store_refresh_expires_at ON store (refresh_expires_at)
    WHERE refresh_expires_at IS NOT NULL AND retired_at IS NULL;

-- Where a listing was shown and no warehouse shows it any more: the marketplace must be told 0 there, or it goes on
-- selling what was there. Kept for good, because nobody knows whether an earlier 0 has arrived; `lumbung store
-- forget-location` removes what the marketplace itself no longer has.
CREATE TABLE former_location (
    tenant_id  bigint NOT NULL,
    listing_id bigint NOT NULL,
    location   text   NOT NULL CHECK (location <> ''),
    PRIMARY KEY (tenant_id, listing_id, location),
    FOREIGN KEY (tenant_id, listing_id) REFERENCES listing
);

CREATE FUNCTION keep_former_location() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO former_location (tenant_id, listing_id, location)
    VALUES (OLD.tenant_id, OLD.listing_id, OLD.location)
    ON CONFLICT (tenant_id, listing_id, location) DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_former_location_of_dropped AFTER DELETE ON contribution
    FOR EACH ROW WHEN (OLD.location IS NOT NULL) EXECUTE FUNCTION keep_former_location();
CREATE TRIGGER keep_former_location_of_moved AFTER UPDATE OF location ON contribution
    FOR EACH ROW WHEN (OLD.location IS NOT NULL AND OLD.location IS DISTINCT FROM NEW.location)
    EXECUTE FUNCTION keep_former_location();

-- As before, and `locations` names also those where the listing is to show nothing any more; null when no warehouse
-- that serves it has a location.
CREATE OR REPLACE VIEW due_listing AS
SELECT s.tenant_id, s.store_id, s.listing_id, s.lane, s.due_for, s.version_due, s.quantity_due, s.attempts,
       l.remote_variant, s.quantity_delivered, s.quantity_floor, s.quantity_doubtful,
       CASE WHEN s.delivered_at IS NULL OR s.observed_at > s.delivered_at THEN s.quantity_observed
            ELSE s.quantity_delivered END AS quantity_expected,
       extract(epoch FROM s.doubtful_until - now())::float8 AS doubt_left_seconds,
       s.handle, s.handle_version, s.handle_quantity,
       extract(epoch FROM now() - s.handle_at)::float8 AS handle_age_seconds,
       (SELECT jsonb_object_agg(p.location, p.quantity) FROM (
            SELECT u.location, sum(u.quantity) AS quantity FROM (
                SELECT c.location, c.quantity FROM contribution c
                WHERE c.tenant_id = s.tenant_id AND c.listing_id = s.listing_id AND c.location IS NOT NULL
                UNION ALL
                SELECT f.location, 0 FROM former_location f
                WHERE f.tenant_id = s.tenant_id AND f.listing_id = s.listing_id
                  AND EXISTS (SELECT FROM contribution c
                              WHERE c.tenant_id = s.tenant_id AND c.listing_id = s.listing_id
                                AND c.location IS NOT NULL)) u
            GROUP BY u.location) p) AS locations
FROM listing_state s
JOIN listing l ON l.tenant_id = s.tenant_id AND l.id = s.listing_id
WHERE s.lane > 0;
