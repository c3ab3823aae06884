"""Decoding with caches."""
