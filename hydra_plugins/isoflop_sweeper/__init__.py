"""The Hydra sweeper that turns `-m` into a plan and a launch."""

from hydra_plugins.isoflop_sweeper.sweeper import IsoflopSweeper

__all__ = ["IsoflopSweeper"]
