"""The drill: a seeded fault injector over real studies (docs/faults.md)."""
