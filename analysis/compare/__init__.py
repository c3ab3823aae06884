"""Who leads at equal compute, and which conclusions survive."""
