-- Rows of the histories are written again once or twice, soon, and then never: what that leaves is cleaned away when the
-- week has grown by a fifth (vacuums for inserts); what the last fifth leaves stays until the week is frozen. Counting dead
-- rows would have a week vacuumed every few seconds, in vain, for as long as somebody holds a snapshot:
-- docs/decisions/0009-busy-rows.md. Weeks that are made from now on are made so.
DO $$
DECLARE
    week regclass;
BEGIN
    FOR week IN SELECT inhrelid::regclass FROM pg_inherits
                WHERE inhparent IN ('stock_update'::regclass, 'item'::regclass, 'stock_change'::regclass, 'call'::regclass)
    LOOP
        EXECUTE format('ALTER TABLE %s SET (autovacuum_vacuum_scale_factor = 5)', week);
    END LOOP;
END $$;
