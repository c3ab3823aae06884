"""Where points come from, and the one table that they become."""
