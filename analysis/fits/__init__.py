"""Fits of a table of points: approaches 1, 2 and 3."""
