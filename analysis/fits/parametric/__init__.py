"""Approach 3: parametric laws, their optimum and what is said of it."""
