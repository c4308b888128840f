"""Measurements: programs that print tables. Not collected as tests."""
