"""Before and after spending: what a grid would tell, and which runs to add."""
