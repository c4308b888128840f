"""`lumbung torture`: the hub under fire, and who watches it."""
