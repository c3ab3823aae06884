"""Losses of runs that do not exist yet, written down before they run and scored after."""
