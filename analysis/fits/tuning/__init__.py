"""Recipe laws: the best settings of each (model, size, budget), and how they go with N and D."""
