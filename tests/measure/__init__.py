"""Measurements: programs that print tables. Tests run them in small, and never look at a time."""
