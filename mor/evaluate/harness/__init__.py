"""lm-evaluation-harness over our models."""
