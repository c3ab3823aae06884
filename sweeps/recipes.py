"""Published recipe laws by the name that `train.recipe` takes; none is on unless it is named.

They were found for dense models, with schedules and data of their own: a start, not an optimum of
the models here (`study=tune` finds that). No torch.
"""

from __future__ import annotations

from ledger.recipe import BATCH, PowerLaw, Recipe

LR = "train.lr"
LADDER = 108e6  # N that the constants of the OLMo ladder are given at

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "paper",
            "Mixture-of-Recursions, arXiv 2507.10524, app. B: one rate and 1024 x 2048 tokens at "
            "every size",
            laws={LR: PowerLaw(3e-3), BATCH: PowerLaw(1024 * 2048)},
        ),
        # 0.0047 (N / 108e6)^(-1/3), 160 (N / 108e6)^(2/3) sequences of 2048 tokens
        Recipe(
            "olmo_ladder",
            "OLMo ladder, github.com/allenai/OLMo scripts/ladder.py, constants of Porian et al. "
            "2024, arXiv 2406.19146; for sequences of 2048 tokens",
            laws={
                LR: PowerLaw(0.0047 * LADDER ** (1 / 3), a=1 / 3),
                BATCH: PowerLaw(160 * 2048 * LADDER ** (-2 / 3), a=-2 / 3),
            },
        ),
        # lr = 1.79 N^-0.713 D^0.307, batch = 0.58 D^0.571 tokens
        Recipe(
            "steplaw",
            "Step Law, Li et al. 2025, arXiv 2503.04715",
            laws={LR: PowerLaw(1.79, a=0.713, b=-0.307), BATCH: PowerLaw(0.58, b=-0.571)},
        ),
    )
}
