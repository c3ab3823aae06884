"""Before and after spending: the interval a grid would give, and which runs to add."""
