-- The keys of rows that change all the time, kept unique when a row is made instead of each time it is changed.
--
-- A unique index asks for each new entry whether one of the older entries of its key is alive. While somebody holds a
-- snapshot those are all the versions that the row has had since: docs/decisions/0009-busy-rows.md. Keys of these rows
-- never change, so it is enough to ask when a row is made. The indexes below are only for finding rows.

-- Who makes a row locks what it belongs to first, so that of two the second sees the first one's row. (Under REPEATABLE
-- READ it would not; rows are made by READ COMMITTED transactions.)
CREATE FUNCTION refuse_second_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM listing l WHERE l.tenant_id = NEW.tenant_id AND l.id = NEW.listing_id FOR NO KEY UPDATE;
    IF (SELECT count(*) FROM listing_state s WHERE s.tenant_id = NEW.tenant_id AND s.listing_id = NEW.listing_id) > 1 THEN
        RAISE 'listing % of tenant % has a state already', NEW.listing_id, NEW.tenant_id
            USING ERRCODE = 'unique_violation', TABLE = 'listing_state';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION refuse_second_contribution() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM listing l WHERE l.tenant_id = NEW.tenant_id AND l.id = NEW.listing_id FOR NO KEY UPDATE;
    IF (SELECT count(*) FROM contribution c WHERE c.tenant_id = NEW.tenant_id AND c.listing_id = NEW.listing_id
                                              AND c.warehouse_id = NEW.warehouse_id) > 1 THEN
        RAISE 'warehouse % adds to listing % of tenant % already', NEW.warehouse_id, NEW.listing_id, NEW.tenant_id
            USING ERRCODE = 'unique_violation', TABLE = 'contribution';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION refuse_second_level() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM variant v WHERE v.tenant_id = NEW.tenant_id AND v.id = NEW.variant_id FOR NO KEY UPDATE;
    IF (SELECT count(*) FROM stock_level l WHERE l.tenant_id = NEW.tenant_id AND l.variant_id = NEW.variant_id
                                             AND l.warehouse_id = NEW.warehouse_id) > 1 THEN
        RAISE 'variant % of tenant % has a level in warehouse % already', NEW.variant_id, NEW.tenant_id, NEW.warehouse_id
            USING ERRCODE = 'unique_violation', TABLE = 'stock_level';
    END IF;
    RETURN NULL;
END $$;

ALTER TABLE listing_state DROP CONSTRAINT listing_state_pkey;
ALTER TABLE contribution  DROP CONSTRAINT contribution_pkey;
ALTER TABLE stock_level   DROP CONSTRAINT stock_level_pkey;
CREATE INDEX listing_state_key ON listing_state (tenant_id, listing_id) WITH (deduplicate_items = off);
CREATE INDEX contribution_key ON contribution (tenant_id, listing_id, warehouse_id) WITH (deduplicate_items = off);
CREATE INDEX stock_level_key ON stock_level (tenant_id, variant_id, warehouse_id) WITH (deduplicate_items = off);

CREATE TRIGGER refuse_second_state AFTER INSERT OR UPDATE OF tenant_id, listing_id ON listing_state
    FOR EACH ROW EXECUTE FUNCTION refuse_second_state();
CREATE TRIGGER refuse_second_contribution AFTER INSERT OR UPDATE OF tenant_id, listing_id, warehouse_id ON contribution
    FOR EACH ROW EXECUTE FUNCTION refuse_second_contribution();
CREATE TRIGGER refuse_second_level AFTER INSERT OR UPDATE OF tenant_id, variant_id, warehouse_id ON stock_level
    FOR EACH ROW EXECUTE FUNCTION refuse_second_level();

-- Without a primary key a table that is replicated logically (to move to another server) refuses every change, unless
-- it says how its rows are told apart.
ALTER TABLE listing_state REPLICA IDENTITY FULL;
ALTER TABLE contribution  REPLICA IDENTITY FULL;
ALTER TABLE stock_level   REPLICA IDENTITY FULL;
