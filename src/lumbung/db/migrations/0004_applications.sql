-- Applications of channels by name, locations that a listing was shown at, tokens that grow old.

-- A removed application's name is free again; the row stays, because stores name it.
ALTER TABLE channel_app DROP CONSTRAINT channel_app_tenant_id_channel_name_key;
CREATE UNIQUE INDEX channel_app_name ON channel_app (tenant_id, channel, name) NULLS NOT DISTINCT
    WHERE retired_at IS NULL;
-- What the marketplace knows it by (partner_id, client_id): an app that is there twice would have its limit twice.
ALTER TABLE channel_app ADD COLUMN identity text;
CREATE UNIQUE INDEX channel_app_identity ON channel_app (channel, identity) WHERE retired_at IS NULL;
-- One account of a marketplace is one store, of whatever tenant: two would overwrite each other's numbers.
DROP INDEX store_account;
CREATE UNIQUE INDEX store_account ON store (channel, account) WHERE retired_at IS NULL;
CREATE INDEX store_channel_app ON store (channel_app_id) WHERE channel_app_id IS NOT NULL AND retired_at IS NULL;

-- Tokens of a live store that nobody uses must be renewed all the same before they are dead.
CREATE INDEX store_refresh_expires_at ON store (refresh_expires_at)
    WHERE refresh_expires_at IS NOT NULL AND retired_at IS NULL AND mode = 'live';

-- Where a place of a store (its remote_variant) was shown and no warehouse shows it any more: the marketplace must be told
-- 0 there, or it goes on selling what was there. By place, not by listing: a remap makes a new listing of the same place.
-- Kept for good, because nobody knows whether an earlier 0 has arrived; `lumbung store forget-location` removes what the
-- marketplace itself no longer has.
CREATE TABLE former_location (
    tenant_id      bigint NOT NULL,
    store_id       bigint NOT NULL,
    remote_variant text   NOT NULL,
    location       text   NOT NULL CHECK (location <> ''),
    PRIMARY KEY (tenant_id, store_id, remote_variant, location),
    FOREIGN KEY (tenant_id, store_id) REFERENCES store (tenant_id, id)
);

CREATE FUNCTION keep_former_location() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO former_location (tenant_id, store_id, remote_variant, location)
    SELECT l.tenant_id, l.store_id, l.remote_variant, OLD.location
    FROM listing l WHERE l.tenant_id = OLD.tenant_id AND l.id = OLD.listing_id
    ON CONFLICT (tenant_id, store_id, remote_variant, location) DO NOTHING;  -- such a row never changes
    RETURN NULL;
END $$;
CREATE TRIGGER keep_former_location_of_dropped AFTER DELETE ON contribution
    FOR EACH ROW WHEN (OLD.location IS NOT NULL) EXECUTE FUNCTION keep_former_location();
CREATE TRIGGER keep_former_location_of_moved AFTER UPDATE OF location ON contribution
    FOR EACH ROW WHEN (OLD.location IS NOT NULL AND OLD.location IS DISTINCT FROM NEW.location)
    EXECUTE FUNCTION keep_former_location();

-- A listing that is retired keeps its contributions; whoever has its place next must know where it was shown.
CREATE FUNCTION keep_former_locations_of_retired() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO former_location (tenant_id, store_id, remote_variant, location)
    SELECT DISTINCT NEW.tenant_id, NEW.store_id, NEW.remote_variant, c.location
    FROM contribution c WHERE c.tenant_id = NEW.tenant_id AND c.listing_id = NEW.id AND c.location IS NOT NULL
    ON CONFLICT (tenant_id, store_id, remote_variant, location) DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_former_locations_of_retired AFTER UPDATE OF retired_at ON listing
    FOR EACH ROW WHEN (OLD.retired_at IS NULL AND NEW.retired_at IS NOT NULL)
    EXECUTE FUNCTION keep_former_locations_of_retired();

-- As before, and `locations` names also those where the listing is to show nothing any more; '' stands for warehouses
-- without a location beside others that have one; null when none has.
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
                SELECT coalesce(c.location, '') AS location, c.quantity FROM contribution c
                WHERE c.tenant_id = s.tenant_id AND c.listing_id = s.listing_id
                UNION ALL
                SELECT f.location, 0 FROM former_location f
                WHERE f.tenant_id = s.tenant_id AND f.store_id = s.store_id
                  AND f.remote_variant = l.remote_variant) u
            WHERE EXISTS (SELECT FROM contribution c
                          WHERE c.tenant_id = s.tenant_id AND c.listing_id = s.listing_id AND c.location IS NOT NULL)
            GROUP BY u.location) p) AS locations
FROM listing_state s
JOIN listing l ON l.tenant_id = s.tenant_id AND l.id = s.listing_id
WHERE s.lane > 0;
